//! Columns for people: names left, numbers right, as wide as their widest cell. Pure.

use weft_control::terminal::plain;

/// Rows under a head.
#[derive(Debug, Default)]
pub(crate) struct Table {
    columns: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

/// Where a cell stands in its column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Align {
    Left,
    Right,
}

impl Table {
    /// An empty table with these columns.
    pub(crate) fn new(columns: Vec<(&'static str, Align)>) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// One more row, a cell for each column. Cells hold what proxies said.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows
            .push(cells.into_iter().map(|cell| plain(&cell)).collect());
    }

    /// Shortens cells of these columns, the widest column first, until a line has at most `width` characters or none can give
    /// way any more.
    pub(crate) fn fit(&mut self, width: usize, columns: &[usize]) {
        const LEAST: usize = 12;
        let wide = |table: &Self, column: usize| {
            let cells = table.rows.iter().filter_map(|row| row.get(column));
            let longest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
            let head = table.columns.get(column).map_or(0, |(name, _)| name.len());
            longest.max(head)
        };
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|at| wide(self, at)).collect();
        let between = 3 * widths.len().saturating_sub(1);
        while widths.iter().sum::<usize>() + between > width {
            let widest = columns.iter().copied().max_by_key(|at| widths[*at]);
            let Some(widest) = widest.filter(|at| widths[*at] > LEAST) else {
                break;
            };
            widths[widest] -= 1;
        }
        for row in &mut self.rows {
            for at in columns {
                row[*at] = shortened(&row[*at], widths[*at]);
            }
        }
    }

    /// As text, each line ended.
    pub(crate) fn render(&self) -> String {
        let head: Vec<String> = self
            .columns
            .iter()
            .map(|(name, _)| (*name).into())
            .collect();
        let lines: Vec<&Vec<String>> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| {
            let cells = lines.iter().filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let mut out = String::new();
        for line in lines {
            let cells = line.iter().zip(&widths).zip(&self.columns);
            let cells = cells.map(|((cell, width), (_, align))| match align {
                Align::Left => format!("{cell:<width$}"),
                Align::Right => format!("{cell:>width$}"),
            });
            out.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
            out.push('\n');
        }
        out
    }
}

/// Beginning and end of a text that is too long: names differ at both.
fn shortened(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most || most == 0 {
        return text.to_owned();
    }
    let begin = most / 2;
    let end = length - (most - 1 - begin);
    let begin = text.chars().take(begin);
    begin.chain(['…']).chain(text.chars().skip(end)).collect()
}

/// `99.50%`, or `-`.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.2}%", share * 100.0))
}

/// `2.0rps`.
pub(crate) fn rate(rps: f64) -> String {
    format!("{rps:.1}rps")
}

/// `0.8ms`, `123ms`, `12.3s`, or `-`.
pub(crate) fn latency(seconds: Option<f64>) -> String {
    match seconds.map(|seconds| seconds * 1000.0) {
        None => "-".into(),
        Some(ms) if ms < 10.0 => format!("{ms:.1}ms"),
        Some(ms) if ms < 10_000.0 => format!("{ms:.0}ms"),
        Some(ms) => format!("{:.1}s", ms / 1000.0),
    }
}

/// `1.5kB/s`.
pub(crate) fn bytes_rate(rate: f64) -> String {
    match rate {
        rate if rate < 1e3 => format!("{rate:.0}B/s"),
        rate if rate < 1e6 => format!("{:.1}kB/s", rate / 1e3),
        rate => format!("{:.1}MB/s", rate / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_left_and_numbers_right() {
        let mut table = Table::new(vec![("NAME", Align::Left), ("RPS", Align::Right)]);
        table.row(vec!["web".into(), rate(2.0)]);
        table.row(vec!["a-long-name".into(), rate(1234.56)]);
        let expected =
            "NAME                RPS\nweb              2.0rps\na-long-name   1234.6rps\n";
        assert_eq!(table.render(), expected);
    }

    #[test]
    fn names_give_way_where_lines_are_too_long() {
        let mut table = Table::new(vec![
            ("SOURCE", Align::Left),
            ("PATH", Align::Left),
            ("RPS", Align::Right),
        ]);
        table.row(vec![
            "loom/front-4pw7hj56d-l94bm".into(),
            "/loom.Colour/Pick".into(),
            rate(2.0),
        ]);
        table.row(vec!["-".into(), "/".into(), rate(1.0)]);
        table.fit(45, &[0, 1]);
        let lines: Vec<String> = table
            .render()
            .lines()
            .map(|it| it.trim_end().to_owned())
            .collect();
        assert!(
            lines.iter().all(|line| line.chars().count() <= 45),
            "{lines:?}"
        );
        assert!(
            lines[1].starts_with("loom/fro…") && lines[1].ends_with("2.0rps"),
            "{lines:?}"
        );
        // Nothing gives way beyond what can be read.
        table.fit(1, &[0, 1]);
        assert_eq!(table.rows[0][1].chars().count(), 12);
        assert_eq!(table.rows[1][0], "-");
    }

    #[test]
    fn figures() {
        assert_eq!(
            (percent(Some(1.0)), percent(None)),
            ("100.00%".into(), "-".into())
        );
        let latencies = [0.0008, 0.123, 12.34].map(|at| latency(Some(at)));
        assert_eq!(latencies, ["0.8ms", "123ms", "12.3s"]);
        assert_eq!(
            [10.0, 1500.0, 2.5e6].map(bytes_rate),
            ["10B/s", "1.5kB/s", "2.5MB/s"]
        );
    }
}
