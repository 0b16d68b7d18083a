//! Rows of a file: JSON, a line each or one list, or CSV with a line of names.

use anyhow::{Context, bail};
use serde_json::{Map, Value};
use std::path::Path;

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A row with the line that it begins on.
pub type Numbered = (usize, Map<String, Value>);

pub fn read(path: &Path) -> anyhow::Result<Vec<Numbered>> {
    let shown = || format!("cannot read {}", path.display());
    let bytes = std::fs::metadata(path).with_context(shown)?.len();
    if bytes > FILE_BYTES_MAX {
        bail!(
            "{} has {bytes} bytes, at most {FILE_BYTES_MAX} are read; split it",
            path.display()
        );
    }
    let text = std::fs::read_to_string(path).with_context(shown)?;
    let text = text.trim_start_matches('\u{feff}');
    match text.trim_start().bytes().next() {
        None => bail!("{} is empty", path.display()),
        Some(b'{') => lines(text),
        Some(b'[') => list(text),
        Some(_) => csv(text),
    }
}

fn lines(text: &str) -> anyhow::Result<Vec<Numbered>> {
    let mut rows = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        // The parser's own words may repeat a value.
        let Ok(row) = serde_json::from_str(line) else {
            bail!("line {}: not a JSON object", index + 1)
        };
        rows.push((index + 1, row));
    }
    Ok(rows)
}

fn list(text: &str) -> anyhow::Result<Vec<Numbered>> {
    let Ok(rows) = serde_json::from_str::<Vec<Map<String, Value>>>(text) else {
        bail!("expected a JSON list of objects, or a JSON object a line")
    };
    Ok(rows
        .into_iter()
        .enumerate()
        .map(|(index, row)| (index + 1, row))
        .collect())
}

/// As RFC 4180 has it. An empty field is absent.
fn csv(text: &str) -> anyhow::Result<Vec<Numbered>> {
    let mut records = records(text)?.into_iter();
    let (_, names) = records.next().context("the file has no line of names")?;
    let mut rows = Vec::new();
    for (line, record) in records {
        if record.len() != names.len() {
            bail!(
                "line {line}: {} fields, and the first line names {}",
                record.len(),
                names.len()
            );
        }
        let present = names.iter().cloned().zip(record).filter(|(_, value)| !value.is_empty());
        rows.push((
            line,
            present.map(|(name, value)| (name, Value::String(value))).collect(),
        ));
    }
    Ok(rows)
}

/// Records with the lines that they begin on. A quoted field may hold commas, quotes and line ends.
fn records(text: &str) -> anyhow::Result<Vec<(usize, Vec<String>)>> {
    let (mut all, mut record, mut field) = (Vec::new(), Vec::new(), String::new());
    let (mut line, mut begins, mut is_quoted) = (1, 1, false);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        line += usize::from(c == '\n');
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => field.extend(chars.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => record.push(std::mem::take(&mut field)),
            '\r' if !is_quoted && chars.peek() == Some(&'\n') => {}
            '\n' if !is_quoted => {
                record.push(std::mem::take(&mut field));
                all.push((begins, std::mem::take(&mut record)));
                begins = line;
            }
            c => field.push(c),
        }
    }
    if is_quoted {
        bail!("line {begins}: a quote is not closed");
    }
    if !field.is_empty() || !record.is_empty() {
        record.push(field);
        all.push((begins, record));
    }
    all.retain(|(_, record)| record.iter().any(|field| !field.is_empty()));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rows_of_each_form_are_the_same() {
        let wanted = json!({ "org_id": "a", "note": "one, \"two\"\nthree" });
        let of = |rows: Vec<Numbered>| json!(rows);
        let line = wanted.to_string();
        assert_eq!(
            of(lines(&format!("\n{line}\n\n")).expect("lines")),
            json!([[2, wanted]])
        );
        assert_eq!(of(list(&format!("[{line}]")).expect("a list")), json!([[1, wanted]]));
        let text = "org_id,empty,note\r\n\r\na,,\"one, \"\"two\"\"\nthree\"\r\nb,,c";
        let rows = of(csv(text).expect("records"));
        assert_eq!(rows, json!([[3, wanted], [5, { "org_id": "b", "note": "c" }]]));
    }

    #[test]
    fn what_is_no_table_is_refused_by_its_line_and_never_shown() {
        for (text, place) in [
            ("{\"a\":1}\nsecret", "line 2"),
            ("a,b\nsecret", "line 2"),
            ("a,b\n\"secret", "line 2"),
        ] {
            let read = if text.starts_with('{') { lines(text) } else { csv(text) };
            let error = read.expect_err("refused").to_string();
            assert!(error.contains(place) && !error.contains("secret"), "{error}");
        }
    }
}
