//! Comparisons that know what they compare, and joined texts without a word for `null`.
//!
//! Every value of a form is a text, and the engine orders values of different kinds by their kind:
//! `params.NumMedia > 0` would hold whatever the text says. The engine has no hook for operators.
//! So before it is compiled a template's `a < b` becomes `compared(a, "<", b)`, and `a ~ b` becomes
//! `(a)|joined ~ (b)|joined`. **Invariant:** only operators change, and [`Rewritten::original`]
//! finds the author's own text of every place.

use minijinja::{Environment, Error, ErrorKind, Value, value::ValueKind};
use std::ops::Range;

/// Why two values have no order. Repeats neither of them.
pub(super) const NO_ORDER: &str = "a number can be compared with a number, or with a text that is one";

pub(super) fn register(environment: &mut Environment<'static>) {
    environment.add_function("compared", |operands: minijinja::value::Rest<Value>| {
        compared(&operands)
    });
    environment.add_filter("joined", |value: &Value| {
        if value.is_undefined() {
            Err(Error::from(ErrorKind::UndefinedError))
        } else if value.is_none() {
            Ok(Value::from(""))
        } else {
            Ok(value.clone())
        }
    });
}

/// `a, "<", b, "<", c`: whether each pair holds.
fn compared(operands: &[Value]) -> Result<bool, Error> {
    if operands.iter().any(Value::is_undefined) {
        return Err(Error::from(ErrorKind::UndefinedError));
    }
    let [first, rest @ ..] = operands else {
        return Err(Error::from(ErrorKind::MissingArgument));
    };
    let mut left = first;
    for pair in rest.chunks_exact(2) {
        let (operator, right) = (pair[0].as_str().unwrap_or_default(), &pair[1]);
        if !holds(left, operator, right)? {
            return Ok(false);
        }
        left = right;
    }
    Ok(true)
}

fn holds(left: &Value, operator: &str, right: &Value) -> Result<bool, Error> {
    let numbers = match (left.as_str(), right.as_str()) {
        // Texts are equal as texts; their order is that of numbers where both are.
        (Some(left), Some(right)) if !matches!(operator, "==" | "!=") => number(left).zip(number(right)),
        (Some(left), None) if right.is_number() => number(left).zip(Some(right.clone())),
        (None, Some(right)) if left.is_number() => Some(left.clone()).zip(number(right)),
        _ => None,
    };
    let (left, right) = numbers.as_ref().map_or((left, right), |(left, right)| (left, right));
    let is_number = |value: &Value| matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    let has_order = (left.kind() == right.kind() && !left.is_none()) || (is_number(left) && is_number(right));
    Ok(match operator {
        "==" => left == right,
        "!=" => left != right,
        _ if !has_order => return Err(Error::new(ErrorKind::InvalidOperation, NO_ORDER)),
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        _ => left >= right,
    })
}

/// A text that is a decimal number: digits with a sign and a fraction.
fn number(text: &str) -> Option<Value> {
    let text = text.trim();
    let is_plain = text
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.'));
    if !is_plain {
        return None;
    }
    let whole = text.parse::<i64>().ok().map(Value::from);
    whole.or_else(|| text.parse::<f64>().ok().map(Value::from))
}

/// A template with its operators replaced.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rewritten {
    pub(super) text: String,
    original: String,
    /// In order: where each edit stands in `text`, and where in the original.
    edits: Vec<(Range<usize>, Range<usize>)>,
}

impl Rewritten {
    /// `None` where there is nothing to replace.
    pub(super) fn new(source: &str) -> Option<Self> {
        let mut edits = Edits::default();
        for block in blocks(source) {
            edits.level(&tokens(source, block));
        }
        let mut edits = edits.0;
        if edits.is_empty() {
            return None;
        }
        // Stable: at one place, an outer operand opens before an inner one and closes after it.
        edits.sort_by_key(|edit| (edit.at.start, edit.at.end, edit.rank));
        let (mut text, mut places, mut copied) = (String::with_capacity(source.len() * 2), Vec::new(), 0);
        for edit in edits {
            text.push_str(&source[copied..edit.at.start]);
            let begin = text.len();
            text.push_str(&edit.with);
            places.push((begin..text.len(), edit.at.clone()));
            copied = edit.at.end;
        }
        text.push_str(&source[copied..]);
        Some(Self {
            text,
            original: source.to_owned(),
            edits: places,
        })
    }

    /// The author's text and the place in it that `range` of the rewritten text stands for.
    pub(super) fn original(&self, range: Range<usize>) -> (&str, Range<usize>) {
        let back = |at: usize, is_end: bool| {
            let mut shift = (0, 0);
            for (new, old) in &self.edits {
                if at < new.start || (at == new.start && is_end) {
                    break;
                }
                if at < new.end {
                    return if is_end { old.end } else { old.start };
                }
                shift = (new.end, old.end);
            }
            shift.1 + (at - shift.0)
        };
        (&self.original, back(range.start, false)..back(range.end, true))
    }
}

/// The text between the marks of each expression and statement, without comments and raw text.
fn blocks(source: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(open) = source[at..].find('{').map(|open| at + open) {
        let (close, is_comment) = match source.as_bytes().get(open + 1) {
            Some(b'{') => ("}}", false),
            Some(b'%') => ("%}", false),
            Some(b'#') => ("#}", true),
            _ => {
                at = open + 1;
                continue;
            }
        };
        let begin = open + 2;
        let end = if is_comment {
            source[begin..].find(close).map(|end| begin + end)
        } else {
            end_of_block(source, begin, close)
        };
        let Some(end) = end else { return found };
        at = end + 2;
        if is_comment {
            continue;
        }
        let inside = source[begin..end].trim_matches(|c: char| c.is_whitespace() || matches!(c, '-' | '+'));
        if close == "%}" && inside == "raw" {
            let Some(end) = source[at..].find("endraw") else {
                return found;
            };
            at += end;
            continue;
        }
        found.push(begin..end);
    }
    found
}

/// Where the block ends: at its mark outside of texts and brackets.
fn end_of_block(source: &str, begin: usize, close: &str) -> Option<usize> {
    let bytes = source.as_bytes();
    let (mut at, mut depth) = (begin, 0_usize);
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'') => at = end_of_text(bytes, at, quote)? - 1,
            _ if depth == 0 && source[at..].starts_with(close) => return Some(at),
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += source[at..].chars().next().map_or(1, char::len_utf8);
    }
    None
}

fn end_of_text(bytes: &[u8], open: usize, quote: u8) -> Option<usize> {
    let mut at = open + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            found if found == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
    None
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Token<'s> {
    text: &'s str,
    at: usize,
}

impl Token<'_> {
    const fn end(&self) -> usize {
        self.at + self.text.len()
    }

    fn is_ordering(&self) -> bool {
        matches!(self.text, "<" | "<=" | ">" | ">=" | "==" | "!=")
    }

    /// Ends an operand of a comparison, whatever stands around it.
    fn is_boundary(&self) -> bool {
        matches!(
            self.text,
            "and" | "or" | "not" | "if" | "elif" | "else" | "for" | "set" | "with" | "," | ":" | "="
        )
    }
}

fn tokens(source: &str, block: Range<usize>) -> Vec<Token<'_>> {
    let bytes = &source.as_bytes()[..block.end];
    let mut found = Vec::new();
    let mut at = block.start;
    while at < block.end {
        let rest = &source[at..block.end];
        let c = rest.chars().next().unwrap_or(' ');
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if c.is_whitespace() {
            at += c.len_utf8();
            continue;
        } else if matches!(c, '"' | '\'') {
            end_of_text(bytes, at, c as u8).map_or(rest.len(), |end| end - at)
        } else if is_word(c) {
            // `1.5` is one number; `a.b` is three tokens, and no operand ends between them.
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if ["<=", ">=", "==", "!=", "//", "**"]
            .iter()
            .any(|two| rest.starts_with(two))
        {
            2
        } else {
            c.len_utf8()
        };
        found.push(Token {
            text: &rest[..length],
            at,
        });
        at += length;
    }
    // The marks that trim white space.
    if found
        .first()
        .is_some_and(|token| matches!(token.text, "-" | "+") && token.at == block.start)
    {
        found.remove(0);
    }
    if found.last().is_some_and(|token| matches!(token.text, "-" | "+")) {
        found.pop();
    }
    found
}

struct Edit {
    at: Range<usize>,
    with: String,
    /// Order of edits at one place.
    rank: i8,
}

#[derive(Default)]
struct Edits(Vec<Edit>);

impl Edits {
    fn insert(&mut self, at: usize, with: &str, rank: i8) {
        self.replace(at..at, with, rank);
    }

    fn replace(&mut self, at: Range<usize>, with: &str, rank: i8) {
        self.0.push(Edit {
            at,
            with: with.to_owned(),
            rank,
        });
    }

    /// One level of brackets: what stands inside of them first, then the terms at this level.
    fn level(&mut self, tokens: &[Token<'_>]) {
        let mut term: Vec<&[Token<'_>]> = Vec::new();
        let mut at = 0;
        while at < tokens.len() {
            let token = &tokens[at];
            if matches!(token.text, "(" | "[" | "{") {
                let end = closing(tokens, at);
                self.level(tokens.get(at + 1..end).unwrap_or_default());
                let end = (end + 1).min(tokens.len());
                term.push(&tokens[at..end]);
                at = end;
                continue;
            }
            if token.is_boundary() {
                self.term(&term);
                term.clear();
            } else {
                term.push(&tokens[at..=at]);
            }
            at += 1;
        }
        self.term(&term);
    }

    /// A run without boundaries; a bracket with its contents is one element of it.
    fn term(&mut self, elements: &[&[Token<'_>]]) {
        let is_ordering = |element: &&[Token<'_>]| matches!(element, [token] if token.is_ordering());
        // Tests and `in` have an order of their own beside comparisons.
        let is_apart = |element: &&[Token<'_>]| matches!(element, [token] if matches!(token.text, "is" | "in"));
        if elements.iter().any(is_apart) {
            return;
        }
        for operand in elements.split(is_ordering) {
            self.joined(operand);
        }
        // Texts are equal as texts, which the engine does well: only an order, or a number that is
        // written out, needs more.
        let is_wanted = |element: &&[Token<'_>]| {
            matches!(element, [token] if matches!(token.text, "<" | "<=" | ">" | ">=")
                || token.text.starts_with(|c: char| c.is_ascii_digit()))
        };
        let is_chain = elements.iter().any(is_ordering)
            && elements.iter().any(is_wanted)
            && elements.split(is_ordering).all(|operand| !operand.is_empty());
        if !is_chain {
            return;
        }
        let (Some(first), Some(last)) = (elements.first(), elements.last()) else {
            return;
        };
        self.insert(first[0].at, "compared(", -2);
        for operator in elements.iter().copied().filter(is_ordering).map(|element| &element[0]) {
            self.replace(operator.at..operator.end(), &format!(", \"{}\", ", operator.text), 0);
        }
        self.insert(last[last.len() - 1].end(), ")", -1);
    }

    /// `a ~ b`, which binds more tightly than `+` and less than `*`.
    fn joined(&mut self, elements: &[&[Token<'_>]]) {
        let is = |element: &&[Token<'_>], text: &str| matches!(element, [token] if token.text == text);
        for sum in elements.split(|element| is(element, "+") || is(element, "-")) {
            let operands: Vec<_> = sum.split(|element| is(element, "~")).collect();
            if operands.len() < 2 {
                continue;
            }
            for operand in operands {
                if let (Some(first), Some(last)) = (operand.first(), operand.last()) {
                    self.insert(first[0].at, "(", -1);
                    self.insert(last[last.len() - 1].end(), ")|joined", -2);
                }
            }
        }
    }
}

/// The index of the bracket that closes the one at `open`, or the end.
fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => {
                depth -= 1;
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}
