//! Dashboards as Grafana 11 and later read them. Pure.

use super::boards::{Board, Choice, Form, Panel};
use serde_json::{Value, json};

/// Version of the schema of dashboards that this is.
const SCHEMA: u32 = 39;
/// Columns of Grafana's grid.
const COLUMNS: usize = 24;

/// The file.
pub fn json(board: &Board) -> String {
    let mut panels = Vec::new();
    let (mut x, mut y, mut tall) = (0, 0, 0);
    for (at, panel) in board.panels.iter().enumerate() {
        let (width, height) = match panel.form {
            Form::Stat => (6, 4),
            Form::Lines | Form::Table => (12, 8),
        };
        if x + width > COLUMNS || (x > 0 && height != tall) {
            (x, y) = (0, y + tall);
        }
        tall = height;
        let place = json!({"x": x, "y": y, "w": width, "h": height});
        panels.push(self::panel(at + 1, panel, &place));
        x += width;
    }
    let document = json!({
        "uid": format!("weft-{}", board.id),
        "title": board.title,
        "description": board.help,
        "tags": ["weft"],
        "schemaVersion": SCHEMA,
        "editable": true,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": []},
        "links": [{
            "title": "Weft",
            "type": "dashboards",
            "tags": ["weft"],
            "asDropdown": true,
            "includeVars": true,
            "keepTime": true,
            "targetBlank": false,
            "icon": "external link",
            "tooltip": "",
            "url": "",
        }],
        "templating": {"list": variables(board.choice)},
        "panels": panels,
    });
    format!("{document:#}\n")
}

fn source() -> Value {
    json!({"type": "prometheus", "uid": "${datasource}"})
}

fn panel(id: usize, panel: &Panel, place: &Value) -> Value {
    let targets = panel.queries.iter().enumerate();
    let targets = targets.map(|(at, (legend, question))| {
        let now = panel.form == Form::Table;
        json!({
            "refId": char::from(b'A' + u8::try_from(at % 26).unwrap_or(0)).to_string(),
            "datasource": source(),
            "expr": question,
            "legendFormat": legend,
            "editorMode": "code",
            "range": !now,
            "instant": now,
            "format": if now { "table" } else { "time_series" },
        })
    });
    let (kind, options) = match panel.form {
        Form::Stat => (
            "stat",
            json!({
                "colorMode": "value", "graphMode": "area", "textMode": "auto", "justifyMode": "auto", "orientation": "auto",
                "percentChangeColorMode": "standard", "showPercentChange": false, "wideLayout": true,
                "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
            }),
        ),
        Form::Lines => (
            "timeseries",
            json!({
                "legend": {"displayMode": "table", "placement": "bottom", "calcs": ["lastNotNull"], "showLegend": true},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }),
        ),
        Form::Table => (
            "table",
            json!({"frameIndex": 0, "showHeader": true, "cellHeight": "sm"}),
        ),
    };
    let mut defaults = json!({"unit": panel.unit});
    if panel.unit == "percentunit" {
        defaults["max"] = json!(1);
    }
    if panel.form == Form::Lines {
        defaults["min"] = json!(0);
    }
    json!({
        "id": id,
        "type": kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": source(),
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": targets.collect::<Vec<_>>(),
    })
}

fn variables(choice: Choice) -> Vec<Value> {
    let mut all = vec![json!({
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
    })];
    let list = |name: &str, label: &str, question: &str| {
        json!({
            "name": name,
            "label": label,
            "type": "query",
            "datasource": source(),
            "query": {"query": question, "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": true,
            "includeAll": true,
            "allValue": ".+",
            "current": {"text": "All", "value": "$__all"},
        })
    };
    if choice != Choice::None {
        let question = "label_values(weft_requests_total, namespace)";
        all.push(list("namespace", "Namespace", question));
    }
    if choice == Choice::Workload {
        let question = "label_values(weft_requests_total{namespace=~\"$namespace\"}, workload)";
        all.push(list("workload", "Workload", question));
    }
    all
}
