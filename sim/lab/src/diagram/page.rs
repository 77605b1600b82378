//! The file: head, violations and summary as plain HTML, the model as JSON, and the scripts that draw it.

use std::fmt::{self, Display, Write as _};

use rmom_sim::history::{Event, Record};

use super::{Picture, model::Model};
use crate::report::{self, At, Emphasis, Line, Verdict};

const PAGE: &str = include_str!("page/page.html");
const STYLE: &str = include_str!("page/style.css");
/// In the order of their dependencies.
const SCRIPTS: [&str; 9] = [
    include_str!("page/data.js"),
    include_str!("page/view.js"),
    include_str!("page/glyphs.js"),
    include_str!("page/lanes.js"),
    include_str!("page/marks.js"),
    include_str!("page/axis.js"),
    include_str!("page/input.js"),
    include_str!("page/texts.js"),
    include_str!("page/main.js"),
];

/// The number of violations described above the picture; the picture itself has all.
const TOLD_VIOLATIONS: usize = 20;
/// The number of records described for each violation: the last ones.
const TOLD_RECORDS: usize = 12;
/// A link to a moment shows this much time before and after it.
const AROUND_MICROS: u64 = 50_000;

/// The whole file.
pub(super) fn page(picture: &Picture<'_>) -> String {
    let scripts: String = SCRIPTS.iter().map(|script| format!("<script>\n{script}</script>\n")).collect();
    let heading = heading(picture.history);
    let (verdict, emphasis) = match picture.verdict {
        None => ("not checked".to_owned(), "warn"),
        Some(verdict @ Verdict::Passed) => (verdict.to_string(), "good"),
        Some(verdict @ Verdict::Vacuous(_)) => (verdict.to_string(), "warn"),
        Some(verdict) => (verdict.to_string(), "bad"),
    };
    fill(|name| match name {
        "title" => format!("{heading}: {}", Escaped(&verdict)),
        "style" => STYLE.to_owned(),
        "heading" => heading.clone(),
        "verdict" => Escaped(&verdict).to_string(),
        "emphasis" => emphasis.to_owned(),
        "facts" => facts(picture),
        "violations" => violations(picture),
        "summary" => summary(picture),
        "data" => json(&Model::of(picture)),
        "scripts" => scripts.clone(),
        unknown => unreachable!("the page has a placeholder {unknown:?}, which nothing replaces"),
    })
}

/// Replaces each `{{name}}` in the page with the text that `part` returns. Inserted text is not scanned again.
fn fill(part: impl Fn(&str) -> String) -> String {
    let mut pieces = PAGE.split("{{");
    let mut page = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, rest) = piece.split_once("}}").unwrap_or((piece, ""));
        page.push_str(&part(name));
        page.push_str(rest);
    }
    page
}

fn heading(history: &[Record]) -> String {
    let seed = history.iter().find_map(|record| match &record.event {
        Event::Began { seed, .. } => Some(*seed),
        _ => None,
    });
    seed.map_or_else(|| "a run".to_owned(), |seed| format!("seed {seed}"))
}

fn facts(picture: &Picture<'_>) -> String {
    let history = picture.history;
    let faults = history.iter().filter(|record| matches!(record.event, Event::FaultBegan { .. })).count();
    let seconds = history.last().map_or(0, |record| record.at_micros) as f64 / 1e6;
    format!(
        "{seconds:.1} simulated seconds, {} events, {faults} faults · commit {} · to replay it: <code>{}</code>",
        history.len(),
        Escaped(picture.commit),
        Escaped(picture.replay)
    )
}

fn violations(picture: &Picture<'_>) -> String {
    if picture.violations.is_empty() {
        return String::new();
    }
    let mut html = String::from("<ol class=\"violations\">\n");
    for (number, violation) in picture.violations.iter().take(TOLD_VIOLATIONS).enumerate() {
        let (promise, what) = (report::promise(violation.promise), Escaped(&violation.what));
        let evidence = report::evidence(picture.history, violation);
        let _ = writeln!(
            html,
            "<li><a href=\"#violation={number}\"><b>{promise}</b> is broken</a>: {what} <details><summary>{} records \
             show it</summary><ol>",
            evidence.len()
        );
        let hidden = evidence.len().saturating_sub(TOLD_RECORDS);
        if hidden > 0 {
            let _ = writeln!(html, "<li>… {hidden} more records</li>");
        }
        for (index, line) in &evidence[hidden..] {
            line_to(&mut html, &format!("event={index}"), line, "");
        }
        html.push_str("</ol></details></li>\n");
    }
    let more = picture.violations.len().saturating_sub(TOLD_VIOLATIONS);
    if more > 0 {
        let _ = writeln!(html, "<li>… and {more} more</li>");
    }
    html.push_str("</ol>");
    html
}

fn summary(picture: &Picture<'_>) -> String {
    let mut html = String::new();
    for line in report::summary(picture.history, picture.violations) {
        let (from, to) = (line.at.0.saturating_sub(AROUND_MICROS), line.until.unwrap_or(line.at).0 + AROUND_MICROS);
        let emphasis = match line.emphasis {
            Emphasis::Broken => "broken",
            Emphasis::Fault => "fault",
            Emphasis::Transition => "turn",
            Emphasis::Plain => "plain",
            Emphasis::Traffic => "traffic",
        };
        let link = format!("t={:.4}-{:.4}", from as f64 / 1e6, to as f64 / 1e6);
        line_to(&mut html, &link, &line, emphasis);
    }
    html
}

/// A line of the summary, with a link to its place in the picture.
fn line_to(html: &mut String, link: &str, line: &Line, emphasis: &str) {
    let Line { at, until, host, text, .. } = line;
    let until = until.map_or_else(String::new, |until: At| format!(" – {until}"));
    let (host, text) = (Escaped(host), Escaped(text));
    let _ = writeln!(
        html,
        "<li class=\"line {emphasis}\"><a class=\"at\" href=\"#{link}\">{at}{until}</a><span class=\"host\">{host}</span><span>{text}</span></li>"
    );
}

/// JSON for a script element: its text ends neither the element nor a line.
fn json(model: &Model) -> String {
    let json = serde_json::to_string(model).expect("a model has nothing that JSON cannot say");
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            // These characters occur only within strings.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                let _ = write!(safe, "\\u{:04x}", u32::from(c));
            }
            _ => safe.push(c),
        }
    }
    safe
}

/// Text escaped for HTML or for a quoted attribute.
struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                _ => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::check::{Promise, Violation};

    /// A body that an attacker or a fuzzer might push.
    const NASTY: &str = "</script><script>alert('1')</script>\u{2028}<!-- \"{{style}}\" & --";

    fn pushed(body: &str) -> Vec<Record> {
        let event = Event::PushSent {
            push: 1,
            label: body.into(),
            topic: body.into(),
            body: body.into(),
            producer: Some(body.into()),
            sequence: 1,
            ttl_millis: None,
            queue_id: None,
            tries_millis: None,
            expected: None,
        };
        vec![Record { at_micros: 1_000, host: format!("host {body}"), event }]
    }

    fn picture<'a>(history: &'a [Record], violations: &'a [Violation]) -> Picture<'a> {
        Picture { history, scenario: None, verdict: None, violations, commit: NASTY, replay: NASTY }
    }

    fn data(page: &str) -> Value {
        let (_, data) = page.split_once("id=\"data\">").unwrap();
        serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap()
    }

    #[test]
    fn pushed_text_is_escaped() {
        let history = pushed(NASTY);
        let violation = Violation { promise: Promise::NoLoss, what: NASTY.into(), records: vec![0] };
        let page = page(&picture(&history, &[violation]));
        assert!(!page.contains("<script>alert"), "brackets are escaped, as text and as JSON");
        assert!(!page.contains("<!--"), "a comment could swallow the end of a script");
        let data_text = page.split_once("id=\"data\">").unwrap().1;
        assert!(!data_text.contains('\u{2028}'), "JSON may have it, older scripts may not");
        let scripts = page.matches("<script").count();
        assert_eq!((scripts, page.matches("</script>").count()), (SCRIPTS.len() + 1, SCRIPTS.len() + 1));
        assert_eq!(data(&page)["lanes"][0]["name"], format!("host {NASTY}"), "it comes out as it went in");
        assert_eq!(data(&page)["violations"][0]["what"], NASTY);
    }

    #[test]
    fn inserted_text_is_not_a_placeholder() {
        let page = page(&picture(&pushed("a"), &[]));
        assert_eq!(page.matches(STYLE).count(), 1, "the style stands there once");
        assert!(page.contains("{{style}}"), "what looks like a part is left as it is");
    }

    #[test]
    fn violations_are_in_plain_html() {
        let history = pushed("p1-1");
        let violations: Vec<_> = (0..=TOLD_VIOLATIONS)
            .map(|number| Violation { promise: Promise::NoLoss, what: format!("lost {number}"), records: vec![0; 20] })
            .collect();
        let page = page(&picture(&history, &violations));
        assert!(page.contains("<a href=\"#violation=0\"><b>promise 2 (no loss)</b> is broken</a>: lost 0"));
        assert!(page.contains("20 records show it") && page.contains("… 8 more records"));
        assert!(page.contains("href=\"#event=0\"") && page.contains("<li>… and 1 more</li>"));
        assert_eq!(data(&page)["violations"].as_array().unwrap().len(), violations.len());
    }

    #[test]
    fn a_history_of_nothing_is_a_page_too() {
        assert_eq!(data(&page(&picture(&[], &[])))["lanes"], Value::Array(Vec::new()));
    }
}
