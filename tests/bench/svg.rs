//! CPU cost of every peer as a multiple of the floor, one group of bars to a case. Drawn by hand: it is rectangles and text.

use crate::cases::{Case, Unit};
use crate::figures::{Repetitions, name};
use crate::run::Results;
use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 110.0;
const BAR: f64 = 14.0;
/// Bars longer than this are cut and say their number.
const MOST: f64 = 4.0;
const COLOURS: &[(&str, &str)] = &[
    ("floor", "#9aa5b1"),
    ("weft", "#0b7285"),
    ("haproxy", "#e8a33d"),
    ("nginx", "#5c940d"),
];

pub(crate) fn plot(results: &Results) -> String {
    let floor = results.peers.iter().position(|peer| peer == "floor");
    let scale = (WIDTH - LEFT - 60.0) / MOST;
    let mut body = String::new();
    let mut y = 50.0;
    for (case, cells) in results.cases.iter().zip(&results.cells) {
        let Some(base) = floor.and_then(|at| cost(case, &cells[at])) else {
            continue;
        };
        let _ = writeln!(
            body,
            r#"<text x="{:.0}" y="{:.0}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            y + BAR,
            case.name
        );
        for (peer, cell) in results.peers.iter().zip(cells) {
            let colour = COLOURS.iter().find(|(name, _)| name == peer);
            let (Some((_, colour)), Some(cost)) = (colour, cost(case, cell)) else {
                continue;
            };
            let ratio = cost / base;
            let length = ratio.min(MOST) * scale;
            let _ = writeln!(
                body,
                r#"<rect x="{LEFT}" y="{y:.0}" width="{length:.1}" height="{:.0}" fill="{colour}"/>"#,
                BAR - 2.0
            );
            let _ = writeln!(
                body,
                r#"<text x="{:.1}" y="{:.0}" class="n">{ratio:.2}</text>"#,
                LEFT + length + 4.0,
                y + BAR - 4.0
            );
            y += BAR;
        }
        y += 8.0;
    }
    let goal = LEFT + 1.15 * scale;
    let _ = writeln!(
        body,
        r##"<line x1="{goal:.1}" x2="{goal:.1}" y1="44" y2="{y:.0}" stroke="#c92a2a" stroke-dasharray="3 3"/>"##
    );
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {:.0}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <style>.n{{font-size:10px;fill:#555}}</style>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">CPU of both proxies, multiples of the floor (dashed: 1.15)</text>\n{}{body}</svg>\n",
        y + 10.0,
        legend()
    )
}

fn legend() -> String {
    let mut text = String::new();
    for (at, (name, colour)) in COLOURS.iter().enumerate() {
        let x = LEFT + at as f64 * 90.0;
        let _ = writeln!(
            text,
            r#"<rect x="{x:.0}" y="26" width="10" height="10" fill="{colour}"/><text x="{:.0}" y="35">{name}</text>"#,
            x + 14.0
        );
    }
    text
}

/// The headline cost of a case.
fn cost(case: &Case, cell: &Repetitions) -> Option<f64> {
    let figure = if case.unit == Unit::PerGigabyte {
        name::CPU_GB
    } else {
        name::CPU_REQUEST
    };
    cell.median(figure).filter(|cost| *cost > 0.0)
}
