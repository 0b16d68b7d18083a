//! A borrowed, partial JSON parse: one pass over the bytes, no tree, no recursion, nothing allocated but for escaped texts that are read.
//!
//! The sources' `read` enter. It goes to the end of the document even when everything wanted was seen, because a key that is read must not
//! occur again behind it. **Invariant:** it takes a document exactly where `serde_json` makes a `Value` of it, so that what was routed here can
//! be parsed again by whoever works on the event; in particular both stop at [`DEPTH_MAX`] levels.

use std::borrow::Cow;

/// What is wrong with a document. Never repeats any of it.
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

/// Reads a whole document. `read` stands on the first byte of the value and consumes exactly that value.
pub(super) fn document<'a, T>(body: &'a [u8], read: impl FnOnce(&mut Scan<'a>) -> Scanned<T>) -> Scanned<T> {
    let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
    if text.starts_with('\u{feff}') {
        return Err("the body begins with a byte order mark");
    }
    let mut scan = Scan { text, at: 0, depth: 0 };
    scan.space();
    let value = read(&mut scan)?;
    scan.space();
    if scan.at == text.len() { Ok(value) } else { Err("something follows the JSON document") }
}

/// Reads a value that was set aside by [`Scan::raw`].
pub(super) fn again<'a, T>(raw: &'a str, read: impl FnOnce(&mut Scan<'a>) -> Scanned<T>) -> Scanned<T> {
    read(&mut Scan { text: raw, at: 0, depth: 0 })
}

/// A key that is read: its value as text, and that it occurs once.
#[derive(Default, Debug)]
pub(super) struct Slot<'a> {
    seen: bool,
    text: Option<Cow<'a, str>>,
}

pub(super) const REPEATED: &str = "a field that is read occurs twice";

impl<'a> Slot<'a> {
    /// Texts are decoded, numbers and truth values kept as they are written; `null`, objects and arrays count as absent.
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
    if std::mem::replace(seen, true) { Err(REPEATED) } else { Ok(()) }
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
        if self.depth > DEPTH_MAX { Err("the body is nested too deeply") } else { Ok(()) }
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

    /// Calls `field` with each key, standing on its value, which it must consume. What is no object is skipped.
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

    /// Calls `item` on each value, which it must consume. What is no array is skipped.
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
            Some(b'"') => self.string().map(Some),
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
        let key = self.string()?;
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

    fn string(&mut self) -> Scanned<Cow<'a, str>> {
        let from = self.at;
        let escaped = self.skip_string()?;
        if escaped {
            // Rare: ids and names have no escapes.
            return serde_json::from_str(&self.text[from..self.at]).map(Cow::Owned).map_err(|_| UNEXPECTED);
        }
        Ok(Cow::Borrowed(&self.text[from + 1..self.at - 1]))
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
                const LONE: &str = "a JSON text contains half a surrogate pair";
                self.at += 1;
                match self.hex4()? {
                    0xd800..=0xdbff => {
                        if !self.text[self.at..].starts_with("\\u") {
                            return Err(LONE);
                        }
                        self.at += 2;
                        if matches!(self.hex4()?, 0xdc00..=0xdfff) { Ok(()) } else { Err(LONE) }
                    }
                    0xdc00..=0xdfff => Err(LONE),
                    _ => Ok(()),
                }
            }
            Some(_) => Err(UNEXPECTED),
            None => Err(ENDED),
        }
    }

    fn hex4(&mut self) -> Scanned<u32> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(ENDED)?;
        self.at += 4;
        digits.iter().try_fold(0, |number, &digit| char::from(digit).to_digit(16).map(|digit| number << 4 | digit)).ok_or(UNEXPECTED)
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
        if self.at == from { Err(UNEXPECTED) } else { Ok(self.at - from) }
    }

    fn number(&mut self) -> Scanned<()> {
        let from = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        let first = self.byte();
        let digits = self.digits()?;
        if first == Some(b'0') && digits > 1 {
            return Err(UNEXPECTED);
        }
        let mut may_overflow = digits > 308;
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.byte() {
            may_overflow = true;
            self.at += 1;
            if let Some(b'+' | b'-') = self.byte() {
                self.at += 1;
            }
            self.digits()?;
        }
        if may_overflow && !self.text[from..self.at].parse::<f64>().is_ok_and(f64::is_finite) {
            return Err("a JSON number is out of range");
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
    at + tail.iter().position(|&byte| matches!(byte, b'"' | b'\\' | 0..0x20)).unwrap_or(tail.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn skips(body: &[u8]) -> Scanned<()> {
        document(body, Scan::skip)
    }

    /// `message.call.id` and `message.type`, the way `read` looks for them.
    fn ids(body: &[u8]) -> Scanned<[Option<String>; 2]> {
        let (mut id, mut kind, mut seen) = (Slot::default(), Slot::default(), [false; 2]);
        document(body, |scan| {
            scan.object(|scan, key| match key {
                "message" => {
                    once(&mut seen[0])?;
                    scan.object(|scan, key| match key {
                        "type" => kind.fill(scan),
                        "call" => {
                            once(&mut seen[1])?;
                            scan.object(|scan, key| if key == "id" { id.fill(scan) } else { scan.skip() })
                        }
                        _ => scan.skip(),
                    })
                }
                _ => scan.skip(),
            })
        })?;
        Ok([id.get().map(str::to_owned), kind.get().map(str::to_owned)])
    }

    #[test]
    fn ids_are_text_however_they_are_written() {
        for (id, expected) in [
            (r#""plain""#, Some("plain")),
            (r#""\u0069d\n\ud83d\ude0a""#, Some("id\n😊")),
            ("9007199254740993", Some("9007199254740993")),
            ("-0", Some("-0")),
            ("1e3", Some("1e3")),
            ("true", Some("true")),
            ("null", None),
            (r#""""#, None),
            ("{}", None),
            (r#"["x"]"#, None),
        ] {
            let body = format!(r#" {{"x":[1,{{}}],"message" : {{"call":{{"id":{id} , "y":null}},"type":"t"}}}} "#);
            assert_eq!(ids(body.as_bytes()), Ok([expected.map(str::to_owned), Some("t".to_owned())]), "{body}");
        }
    }

    #[test]
    fn a_field_that_is_read_occurs_once_however_its_name_is_written() {
        for body in [
            r#"{"message":{"type":"a","type":"a"}}"#,
            r#"{"message":{"type":"a","\u0074ype":"b"}}"#,
            r#"{"message":{"call":{"id":"a"},"call":{"id":"b"}}}"#,
            r#"{"message":{"call":{"id":null,"x":{"id":1},"i\u0064":"b"}}}"#,
            r#"{"message":{},"message":{}}"#,
        ] {
            assert_eq!(ids(body.as_bytes()), Err(REPEATED), "{body}");
        }
        assert!(ids(br#"{"message":{"x":1,"x":2,"y":{"type":1,"type":2}}}"#).is_ok(), "a field that nobody reads may repeat");
    }

    #[test]
    fn documents_are_taken_where_serde_json_takes_them() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let (at_limit, over_limit) = (deep(127), deep(128));
        for body in [
            "",
            " ",
            "nul",
            "nulll",
            "null null",
            "\u{feff}{}",
            "{",
            "{}",
            "[]",
            "[",
            "]",
            "{]",
            "[}",
            "[1,]",
            "[,1]",
            "{,}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "[1 2]",
            "01",
            "-",
            "-01",
            "-0",
            "0.",
            ".5",
            "1.",
            "1e",
            "1e+",
            "1e5",
            "1E-5",
            "+1",
            "NaN",
            "Infinity",
            "1e400",
            "-1e400",
            "0e400",
            "1e-400",
            "\"",
            "\"\\\"",
            "\"\\x\"",
            "\"\\ud800\"",
            "\"\\ud800\\ud800\"",
            "\"\\udc00\"",
            "\"\\ud83d\\ude0a\"",
            "\"\\u12\"",
            "\"\\u+123\"",
            "\"a\nb\"",
            "\"\u{0}\"",
            "\"\u{7f}\"",
            "'a'",
            "true",
            "truefalse",
            "[true,false,null]",
            "/**/1",
            "{\"a\":{\"b\":[{\"c\":[]}]}}",
            &at_limit,
            &over_limit,
        ] {
            assert_eq!(skips(body.as_bytes()).is_ok(), serde_json::from_str::<Value>(body).is_ok(), "{:?} {body:.80}", skips(body.as_bytes()));
        }
        assert!(skips(b"\"\xff\"").is_err());
        assert!(skips(&json!("é").to_string().encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>()).is_err());
    }

    /// C11: bounded in time and stack; the thread's stack is a tenth of a usual one.
    #[test]
    fn hostile_documents_are_bounded_in_time_and_stack() {
        let many_keys = format!("{{{}}}", (0..1_000_000).map(|i| format!("\"k{i}\":0")).collect::<Vec<_>>().join(","));
        let documents = [
            ("10^5 arrays, open", "[".repeat(100_000), false),
            ("10^5 arrays", "[".repeat(100_000) + &"]".repeat(100_000), false),
            ("10^5 objects", "{\"a\":".repeat(100_000) + "1" + &"}".repeat(100_000), false),
            ("10^6 keys", many_keys, true),
            ("5 MB text", format!("\"{}\"", "x".repeat(5_000_000)), true),
            ("5 MB of escapes", format!("\"{}\"", "\\u0041".repeat(800_000)), true),
            ("10^5 digits", "9".repeat(100_000), false),
            ("10^5 digits behind the point", format!("0.{}", "9".repeat(100_000)), true),
        ];
        std::thread::Builder::new()
            .stack_size(256 * 1024)
            .spawn(move || {
                for (name, document, taken) in &documents {
                    let begun = std::time::Instant::now();
                    assert_eq!(skips(document.as_bytes()).is_ok(), *taken, "{name}");
                    // Unoptimised and on a busy machine; optimised it is a hundred times less.
                    assert!(begun.elapsed().as_secs() < 5, "{name} took {:?}", begun.elapsed());
                }
            })
            .expect("a thread")
            .join()
            .expect("no stack overflow, no panic");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::btree_map("id|type|call|message|x|[a-z\"\\\\é]{0,3}", inner, 0..5).prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn by_serde(document: &Value) -> [Option<String>; 2] {
        let text = |value: &Value| match value {
            Value::String(text) => Some(text.clone()).filter(|text| !text.is_empty()),
            Value::Number(number) => Some(number.to_string()),
            Value::Bool(truth) => Some(truth.to_string()),
            _ => None,
        };
        [text(&document["message"]["call"]["id"]), text(&document["message"]["type"])]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

        #[test]
        fn the_same_ids_as_serde_json(call in any_json(), kind in any_json(), rest in any_json(), pretty: bool) {
            let document = json!({ "rest": rest, "message": { "call": { "id": call, "x": kind }, "type": kind }, "tail": [rest] });
            let body = if pretty { serde_json::to_vec_pretty(&document) } else { serde_json::to_vec(&document) }.expect("a value serialises");
            prop_assert_eq!(ids(&body), Ok(by_serde(&document)));
        }

        /// A document with some bytes changed, cut or doubled is taken by both or by neither.
        #[test]
        fn damaged_documents_are_refused_where_serde_json_refuses_them(
            document in any_json(), at in any::<prop::sample::Index>(), with in prop::collection::vec(any::<u8>(), 0..4), cut in 0_usize..4,
        ) {
            let mut body = serde_json::to_vec(&document).expect("a value serialises");
            let at = at.index(body.len() + 1);
            let end = (at + cut).min(body.len());
            body.splice(at..end, with);
            prop_assert_eq!(skips(&body).is_ok(), serde_json::from_slice::<Value>(&body).is_ok(), "{:?}", String::from_utf8_lossy(&body));
        }

        #[test]
        fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ids(&body);
        }

        #[test]
        fn plain_len_is_what_a_loop_finds(bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'"'), Just(0x80), Just(0x1f), Just(0x21), Just(b'\\')], 0..40)) {
            let expected = bytes.iter().position(|&byte| byte < 0x20 || byte == b'"' || byte == b'\\').unwrap_or(bytes.len());
            prop_assert_eq!(plain_len(&bytes), expected);
        }
    }
}
