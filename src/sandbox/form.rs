//! Reads `application/x-www-form-urlencoded` as a provider would: `+` is a space, `%XX` a byte, and
//! invalid UTF-8 is replaced.

pub(super) fn parse(text: &[u8]) -> Vec<(String, String)> {
    text.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = at.map_or((pair, &[][..]), |at| (&pair[..at], &pair[at + 1..]));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &[u8]) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [a, b, ..]) if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0);
                out.push(u8::try_from(digit(*a) << 4 | digit(*b)).expect("two hexadecimal digits are a byte"));
                rest = &tail[2..];
            }
            _ => out.push(byte),
        }
    }
    String::from_utf8(out).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

/// The first value of a name.
pub(super) fn get<'a>(pairs: &'a [(String, String)], name: &str) -> Option<&'a str> {
    pairs
        .iter()
        .find(|(given, _)| given == name)
        .map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    #[test]
    fn pairs_are_decoded_once_and_in_order() {
        let pairs = super::parse(b"To=%2B15551234567&Body=a+b%26c%3D%25d&empty=&bare&&x=%zz&x=%C3%A9");
        let expected = [
            ("To", "+15551234567"),
            ("Body", "a b&c=%d"),
            ("empty", ""),
            ("bare", ""),
            ("x", "%zz"),
            ("x", "é"),
        ];
        assert_eq!(pairs, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
