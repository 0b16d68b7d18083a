//! A borrowed, partial JSON parse: one pass over the bytes, no tree, no recursion, nothing
//! allocated but for escaped texts that are read.
//!
//! The sources' `read` enter. It goes to the end of the document even after it has seen every
//! wanted key, because such a key must not occur again. **Invariant:** it accepts a document
//! exactly where `serde_json` makes a `Value` of it, so that later rooms can parse a routed event
//! again. In particular both stop at [`DEPTH_MAX`] levels.

use std::borrow::Cow;

/// The fault of a document. Never repeats any of it.
pub(super) type Scanned<T> = Result<T, &'static str>;

/// Levels of nesting. `serde_json` refuses the 128th.
pub(super) const DEPTH_MAX: u32 = 127;

const UNEXPECTED: &str = "the body is not JSON";
const ENDED: &str = "the body ends within a JSON document";

pub(super) struct Scan<'a> {
    text: &'a str,
    at: usize,
    depth: u32,
}

/// Reads a whole document. `read` stands on the first byte of the value and consumes exactly that
/// value.
pub(super) fn document<'a, T>(body: &'a [u8], read: impl FnOnce(&mut Scan<'a>) -> Scanned<T>) -> Scanned<T> {
    let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
    if text.starts_with('\u{feff}') {
        return Err("the body begins with a byte order mark");
    }
    let mut scan = Scan { text, at: 0, depth: 0 };
    scan.space();
    let value = read(&mut scan)?;
    scan.space();
    if scan.at == text.len() {
        Ok(value)
    } else {
        Err("something follows the JSON document")
    }
}

/// Reads a value that was set aside by [`Scan::raw`].
pub(super) fn again<'a, T>(raw: &'a str, read: impl FnOnce(&mut Scan<'a>) -> Scanned<T>) -> Scanned<T> {
    read(&mut Scan {
        text: raw,
        at: 0,
        depth: 0,
    })
}

/// A key that is read: its value as text, and that it occurs once.
#[derive(Default, Debug)]
pub(super) struct Slot<'a> {
    seen: bool,
    text: Option<Cow<'a, str>>,
}

pub(super) const REPEATED: &str = "a field that is read occurs twice";

impl<'a> Slot<'a> {
    /// Texts are decoded, numbers and truth values kept as they are written; `null`, objects and
    /// arrays count as absent.
    pub(super) fn fill(&mut self, scan: &mut Scan<'a>) -> Scanned<()> {
        once(&mut self.seen)?;
        self.text = scan.scalar()?;
        Ok(())
    }

    /// `None` where absent or empty.
    pub(super) fn get(&self) -> Option<&str> {
        self.text.as_deref().filter(|text| !text.is_empty())
    }
}

/// For keys whose value is an object or an array.
pub(super) fn once(seen: &mut bool) -> Scanned<()> {
    if std::mem::replace(seen, true) {
        Err(REPEATED)
    } else {
        Ok(())
    }
}

impl<'a> Scan<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.byte() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Scanned<()> {
        match self.byte() {
            Some(found) if found == byte => {
                self.at += 1;
                Ok(())
            }
            Some(_) => Err(UNEXPECTED),
            None => Err(ENDED),
        }
    }

    fn enter(&mut self) -> Scanned<()> {
        self.at += 1;
        self.depth += 1;
        self.space();
        if self.depth > DEPTH_MAX {
            Err("the body is nested too deeply")
        } else {
            Ok(())
        }
    }

    fn leave(&mut self) {
        self.at += 1;
        self.depth -= 1;
    }

    pub(super) fn is_object(&self) -> bool {
        self.byte() == Some(b'{')
    }

    pub(super) fn is_array(&self) -> bool {
        self.byte() == Some(b'[')
    }

    /// Calls `field` with each key, standing on its value, which it must consume. A value that is
    /// no object is skipped.
    pub(super) fn object(&mut self, mut field: impl FnMut(&mut Self, &str) -> Scanned<()>) -> Scanned<()> {
        if !self.is_object() {
            return self.skip();
        }
        self.enter()?;
        if self.byte() == Some(b'}') {
            self.leave();
            return Ok(());
        }
        loop {
            let key = self.key()?;
            field(self, &key)?;
            self.space();
            match self.byte() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b'}') => {
                    self.leave();
                    return Ok(());
                }
                found => return Err(found.map_or(ENDED, |_| UNEXPECTED)),
            }
        }
    }

    /// Calls `item` on each value, which it must consume. A value that is no array is skipped.
    pub(super) fn array(&mut self, mut item: impl FnMut(&mut Self) -> Scanned<()>) -> Scanned<()> {
        if !self.is_array() {
            return self.skip();
        }
        self.enter()?;
        if self.byte() == Some(b']') {
            self.leave();
            return Ok(());
        }
        loop {
            item(self)?;
            self.space();
            match self.byte() {
                Some(b',') => {
                    self.at += 1;
                    self.space();
                }
                Some(b']') => {
                    self.leave();
                    return Ok(());
                }
                found => return Err(found.map_or(ENDED, |_| UNEXPECTED)),
            }
        }
    }

    /// The value's bytes as they stand.
    pub(super) fn raw(&mut self) -> Scanned<&'a str> {
        let from = self.at;
        self.skip()?;
        Ok(&self.text[from..self.at])
    }

    fn scalar(&mut self) -> Scanned<Option<Cow<'a, str>>> {
        match self.byte() {
            // A text that does not decode is no id of anything that we know.
            Some(b'"') => self.string(),
            Some(b'{' | b'[' | b'n') => self.skip().map(|()| None),
            _ => self.raw().map(|raw| Some(Cow::Borrowed(raw))),
        }
    }

    /// Over one value of any kind. Iterative: what encloses it is one bit a level.
    pub(super) fn skip(&mut self) -> Scanned<()> {
        let outside = self.depth;
        let mut in_object: u128 = 0;
        loop {
            match self.byte() {
                Some(open @ (b'{' | b'[')) => {
                    self.enter()?;
                    let is_object = open == b'{';
                    if self.byte() == Some(if is_object { b'}' } else { b']' }) {
                        self.leave();
                    } else {
                        in_object = in_object << 1 | u128::from(is_object);
                        if is_object {
                            self.skip_key()?;
                        }
                        continue;
                    }
                }
                Some(b'"') => {
                    self.skip_string()?;
                }
                Some(b't') => self.word("true")?,
                Some(b'f') => self.word("false")?,
                Some(b'n') => self.word("null")?,
                Some(_) => self.number()?,
                None => return Err(ENDED),
            }
            // A value ends here; so may those that enclose it.
            loop {
                if self.depth == outside {
                    return Ok(());
                }
                self.space();
                let is_object = in_object & 1 == 1;
                match (self.byte(), is_object) {
                    (Some(b','), _) => {
                        self.at += 1;
                        self.space();
                        if is_object {
                            self.skip_key()?;
                        }
                        break;
                    }
                    (Some(b'}'), true) | (Some(b']'), false) => {
                        self.leave();
                        in_object >>= 1;
                    }
                    (found, _) => return Err(found.map_or(ENDED, |_| UNEXPECTED)),
                }
            }
        }
    }

    fn key(&mut self) -> Scanned<Cow<'a, str>> {
        let from = self.at;
        // A name that does not decode is none of the wanted names. It stands for itself, with its
        // escape.
        let key = self.string()?.unwrap_or(Cow::Borrowed(&self.text[from..self.at]));
        self.colon()?;
        Ok(key)
    }

    fn skip_key(&mut self) -> Scanned<()> {
        self.skip_string()?;
        self.colon()
    }

    fn colon(&mut self) -> Scanned<()> {
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(())
    }

    /// `None`: half a surrogate pair stands in it.
    fn string(&mut self) -> Scanned<Option<Cow<'a, str>>> {
        let from = self.at;
        let escaped = self.skip_string()?;
        if escaped {
            // Rare: ids and names have no escapes.
            return Ok(serde_json::from_str(&self.text[from..self.at]).ok().map(Cow::Owned));
        }
        Ok(Some(Cow::Borrowed(&self.text[from + 1..self.at - 1])))
    }

    /// Over a string; whether it holds escapes.
    fn skip_string(&mut self) -> Scanned<bool> {
        self.expect(b'"')?;
        let mut escaped = false;
        loop {
            self.at += plain_len(&self.text.as_bytes()[self.at..]);
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(escaped);
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err("a JSON text contains a control character"),
                None => return Err(ENDED),
            }
        }
    }

    fn escape(&mut self) -> Scanned<()> {
        self.at += 1;
        match self.byte() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                // Half a surrogate pair is accepted. A transcript that was cut within an emoji is
                // an authentic event, and its sender does not retry. A field that is read counts as
                // absent then.
                self.at += 1;
                self.hex4().map(drop)
            }
            Some(_) => Err(UNEXPECTED),
            None => Err(ENDED),
        }
    }

    fn hex4(&mut self) -> Scanned<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(ENDED)?;
        self.at += 4;
        digits
            .iter()
            .try_fold(0, |number, &digit| {
                char::from(digit).to_digit(16).map(|digit| number << 4 | digit)
            })
            .ok_or(UNEXPECTED)
    }

    fn word(&mut self, word: &str) -> Scanned<()> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return Err(UNEXPECTED);
        }
        self.at += word.len();
        Ok(())
    }

    fn digits(&mut self) -> Scanned<usize> {
        let from = self.at;
        while self.byte().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if self.at == from {
            Err(UNEXPECTED)
        } else {
            Ok(self.at - from)
        }
    }

    /// Numbers are kept as they are written: one beyond all floats is no reason to lose the event
    /// that it stands in.
    fn number(&mut self) -> Scanned<()> {
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let first = self.byte();
        let digits = self.digits()?;
        if first == Some(b'0') && digits > 1 {
            return Err(UNEXPECTED);
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }
}

/// How many bytes at the front neither end a string nor need a look: eight at a time.
fn plain_len(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::MAX / 255;
    const HIGHS: u64 = ONES << 7;
    // The lowest mark is exact; marks above it may be false, and are not looked at.
    const fn zeros(word: u64) -> u64 {
        word.wrapping_sub(ONES) & !word & HIGHS
    }
    let mut chunks = bytes.chunks_exact(8);
    let mut at = 0;
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("eight bytes"));
        let quotes = zeros(word ^ (ONES * u64::from(b'"')));
        let backslashes = zeros(word ^ (ONES * u64::from(b'\\')));
        let controls = word.wrapping_sub(ONES * 0x20) & !word & HIGHS;
        let marks = quotes | backslashes | controls;
        if marks != 0 {
            return at + marks.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let tail = chunks.remainder();
    at + tail
        .iter()
        .position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20))
        .unwrap_or(tail.len())
}

#[cfg(test)]
mod tests;
