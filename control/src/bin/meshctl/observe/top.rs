//! `meshctl top`: what is asked most, live. The table is pure; the terminal is at the edge, and without one there are
//! plain lines.

use super::table::{Align, Table, latency, percent};
use super::tap::{Filters, connected};
use anyhow::Result;
use clap::{Args, ValueEnum};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Modifier, Style};
use ratatui::widgets::Paragraph;
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};
use weft_control::traffic::show::{Exchange, Line, Tally};

/// Rows remembered; the quietest makes room.
const MAX_ROWS: usize = 1_000;

/// Show what is requested most, live
#[derive(Debug, Args)]
pub(crate) struct TopArgs {
    #[command(flatten)]
    filters: Filters,
    /// Add the requests of all callers up
    #[arg(long)]
    hide_sources: bool,
    /// Add requests up by route in place of by path
    #[arg(long)]
    routes: bool,
    /// End after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Sorted by
    #[arg(long, value_enum, default_value_t = Order::Count)]
    sort: Order,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    Count,
    Worst,
    Failures,
}

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    source: String,
    destination: String,
    method: String,
    path: String,
}

#[derive(Debug, Default)]
struct Seen {
    count: u64,
    success: u64,
    best: f64,
    worst: f64,
    last: f64,
}

/// The table, growing with what is seen.
struct Top {
    rows: HashMap<Key, Seen>,
    tally: Tally,
    hide_sources: bool,
    routes: bool,
    order: Order,
}

/// 0, or 1 if there is no pod to look at.
pub(crate) fn run(args: &TopArgs) -> Result<ExitCode> {
    let path = format!("/api/v1/tap?{}", args.filters.query());
    let mut lines = args.filters.target.lines(&path)?;
    let Some(first) = lines.next() else {
        return Ok(ExitCode::FAILURE);
    };
    let first = first?;
    let about = connected(&first);
    if matches!(&first, Line::Connected { pods, .. } if pods.is_empty()) {
        eprint!("{about}");
        return Ok(ExitCode::FAILURE);
    }
    let (sender, receiver) = channel();
    std::thread::spawn(move || lines.try_for_each(|line| sender.send(line)));
    let top = Top {
        rows: HashMap::new(),
        tally: Tally::default(),
        hide_sources: args.hide_sources,
        routes: args.routes,
        order: args.sort,
    };
    let deadline = args.seconds.and_then(super::later);
    if std::io::stdout().is_terminal() {
        live(top, &receiver, &about, deadline)?;
    } else {
        eprint!("{about}");
        plain(top, &receiver, deadline)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The whole table every two seconds.
fn plain(mut top: Top, lines: &Receiver<Result<Line>>, deadline: Option<Instant>) -> Result<()> {
    let mut out = std::io::stdout();
    loop {
        std::thread::sleep(Duration::from_secs(2));
        let goes_on = top.take_all(lines)?;
        let text = top.render(usize::MAX) + "\n";
        let over = deadline.is_some_and(|at| Instant::now() >= at);
        let gone = out.write_all(text.as_bytes()).is_err() || out.flush().is_err();
        if !goes_on || over || gone {
            return Ok(());
        }
    }
}

/// Four times a second, with keys.
fn live(
    mut top: Top,
    lines: &Receiver<Result<Line>>,
    about: &str,
    deadline: Option<Instant>,
) -> Result<()> {
    let mut terminal = ratatui::init();
    let mut from = 0;
    let done = loop {
        match top.take_all(lines) {
            Ok(true) => {}
            Ok(false) => break Ok(()),
            Err(error) => break Err(error),
        }
        from = from.min(top.rows.len().saturating_sub(1));
        if let Err(error) = terminal.draw(|frame| draw(frame, &top, about, from)) {
            break Err(error.into());
        }
        if deadline.is_some_and(|at| Instant::now() >= at) {
            break Ok(());
        }
        match key() {
            Err(error) => break Err(error.into()),
            Ok(None) => {}
            Ok(Some(KeyCode::Char('q') | KeyCode::Esc)) => break Ok(()),
            Ok(Some(KeyCode::Down | KeyCode::Char('j'))) => from += 1,
            Ok(Some(KeyCode::Up | KeyCode::Char('k'))) => from = from.saturating_sub(1),
            Ok(Some(KeyCode::PageDown)) => from += 10,
            Ok(Some(KeyCode::PageUp)) => from = from.saturating_sub(10),
            Ok(Some(KeyCode::Char('s'))) => top.order = top.order.next(),
            Ok(Some(KeyCode::Char('r'))) => top.rows.clear(),
            Ok(Some(_)) => {}
        }
    };
    ratatui::restore();
    done
}

/// A key, if one is pressed within a quarter of a second.
fn key() -> std::io::Result<Option<KeyCode>> {
    if !event::poll(Duration::from_millis(250))? {
        return Ok(None);
    }
    let Event::Key(key) = event::read()? else {
        return Ok(None);
    };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    Ok(match key.kind {
        KeyEventKind::Press if interrupt => Some(KeyCode::Esc),
        KeyEventKind::Press => Some(key.code),
        _ => None,
    })
}

fn draw(frame: &mut ratatui::Frame<'_>, top: &Top, about: &str, from: usize) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Min(2),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let colours = std::env::var_os("NO_COLOR").is_none();
    let plain = Style::default();
    let bold = if colours {
        plain.add_modifier(Modifier::BOLD)
    } else {
        plain
    };
    let about: Vec<&str> = about.lines().collect();
    frame.render_widget(Paragraph::new(about.join("; ")).style(bold), head);
    let rows = usize::from(body.height).saturating_sub(1);
    let text = top.render_within(from + rows, body.width.into());
    let mut lines: Vec<&str> = text.lines().collect();
    if lines.len() > 1 {
        lines.drain(1..=from.min(lines.len() - 1));
    }
    frame.render_widget(Paragraph::new(lines.join("\n")), body);
    let (seen, matched, skipped) = top.tally.totals();
    let order = top.order.label();
    let text = format!(
        "{seen} seen, {matched} matched, {skipped} left out   q quit  ↑↓ scroll  s sort ({order})  r reset"
    );
    frame.render_widget(Paragraph::new(text).style(bold), foot);
}

impl Order {
    fn next(self) -> Self {
        match self {
            Order::Count => Order::Worst,
            Order::Worst => Order::Failures,
            Order::Failures => Order::Count,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Order::Count => "count",
            Order::Worst => "worst",
            Order::Failures => "failures",
        }
    }
}

impl Top {
    /// Takes in what has come; false: nothing more will.
    fn take_all(&mut self, lines: &Receiver<Result<Line>>) -> Result<bool> {
        loop {
            match lines.try_recv() {
                Ok(line) => self.take(&line?),
                Err(TryRecvError::Empty) => return Ok(true),
                Err(TryRecvError::Disconnected) => return Ok(false),
            }
        }
    }

    fn take(&mut self, line: &Line) {
        self.tally.take(line);
        let Line::Ended(at) = line else {
            return;
        };
        let key = self.key(at);
        if !self.rows.contains_key(&key) && self.rows.len() >= MAX_ROWS {
            let quietest = self.rows.iter().min_by_key(|(_, seen)| seen.count);
            if let Some(quietest) = quietest.map(|(key, _)| key.clone()) {
                self.rows.remove(&quietest);
            }
        }
        self.rows.entry(key).or_default().take(at);
    }

    fn key(&self, at: &Exchange) -> Key {
        let (source, destination) = match at.direction.as_str() {
            "outbound" => (&at.pod, &at.peer),
            _ => (&at.peer, &at.pod),
        };
        let unknown = |text: &String| {
            if text.is_empty() {
                "-".to_owned()
            } else {
                text.clone()
            }
        };
        let by_route = self.routes && !at.route.is_empty();
        Key {
            source: if self.hide_sources {
                String::new()
            } else {
                unknown(source)
            },
            destination: unknown(destination),
            method: at.method.clone(),
            path: if by_route {
                at.route.clone()
            } else {
                at.path.clone()
            },
        }
    }

    /// The first rows, as text.
    fn render(&self, most: usize) -> String {
        self.table(most).render()
    }

    /// The same for a terminal of this width.
    fn render_within(&self, most: usize, width: usize) -> String {
        let mut table = self.table(most);
        let names: &[usize] = if self.hide_sources {
            &[0, 2]
        } else {
            &[0, 1, 3]
        };
        table.fit(width, names);
        table.render()
    }

    fn table(&self, most: usize) -> Table {
        let mut columns = vec![("DESTINATION", Align::Left), ("METHOD", Align::Left)];
        if !self.hide_sources {
            columns.insert(0, ("SOURCE", Align::Left));
        }
        columns.push((if self.routes { "ROUTE" } else { "PATH" }, Align::Left));
        let figures = ["COUNT", "BEST", "WORST", "LAST", "SUCCESS_RATE"];
        columns.extend(figures.map(|name| (name, Align::Right)));
        let mut table = Table::new(columns);
        for (key, seen) in self.sorted().into_iter().take(most) {
            let mut cells = vec![
                key.destination.clone(),
                key.method.clone(),
                key.path.clone(),
            ];
            if !self.hide_sources {
                cells.insert(0, key.source.clone());
            }
            cells.push(seen.count.to_string());
            cells.extend([seen.best, seen.worst, seen.last].map(|at| latency(Some(at))));
            cells.push(percent(Some(
                seen.success as f64 / seen.count.max(1) as f64,
            )));
            table.row(cells);
        }
        table
    }

    fn sorted(&self) -> Vec<(&Key, &Seen)> {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by(|(a_key, a), (b_key, b)| {
            let by = match self.order {
                Order::Count => b.count.cmp(&a.count),
                Order::Worst => b.worst.total_cmp(&a.worst),
                Order::Failures => (b.count - b.success).cmp(&(a.count - a.success)),
            };
            by.then_with(|| a_key.cmp(b_key))
        });
        rows
    }
}

impl Seen {
    fn take(&mut self, at: &Exchange) {
        let took = at.duration_us as f64 / 1e6;
        self.best = if self.count == 0 {
            took
        } else {
            self.best.min(took)
        };
        self.worst = self.worst.max(took);
        self.last = took;
        self.count += 1;
        let grpc_failed = at
            .grpc_status
            .is_some_and(|code| matches!(code, 2 | 4 | 7 | 13..=15));
        self.success += u64::from(at.status < 500 && !grpc_failed && at.outcome != "broken");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(path: &str, us: u64, status: u32) -> Line {
        Line::Ended(Box::new(Exchange {
            pod: "shop/web-1".into(),
            direction: "inbound".into(),
            peer: "shop/sa/load".into(),
            method: "GET".into(),
            path: path.into(),
            status,
            duration_us: us,
            ..Exchange::default()
        }))
    }

    fn top() -> Top {
        let mut top = Top {
            rows: HashMap::new(),
            tally: Tally::default(),
            hide_sources: false,
            routes: false,
            order: Order::Count,
        };
        for line in [
            ended("/a", 1000, 200),
            ended("/b", 500_000, 500),
            ended("/a", 3000, 200),
        ] {
            top.take(&line);
        }
        top
    }

    #[test]
    fn what_is_asked_most_stands_first() {
        let expected = "\
SOURCE         DESTINATION   METHOD   PATH   COUNT    BEST   WORST    LAST   SUCCESS_RATE
shop/sa/load   shop/web-1    GET      /a         2   1.0ms   3.0ms   3.0ms        100.00%
shop/sa/load   shop/web-1    GET      /b         1   500ms   500ms   500ms          0.00%
";
        assert_eq!(top().render(10), expected);
        assert_eq!(top().render(1).lines().count(), 2);
    }

    #[test]
    fn other_orders_and_bounds() {
        let mut top = top();
        top.order = Order::Worst;
        assert_eq!(top.sorted()[0].0.path, "/b");
        for n in 0..2 * MAX_ROWS {
            top.take(&ended(&format!("/{n}"), 1, 200));
        }
        assert_eq!(top.rows.len(), MAX_ROWS);
        assert!(
            top.rows.keys().any(|key| key.path == "/a"),
            "the quietest went"
        );
    }
}
