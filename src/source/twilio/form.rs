//! A form body as raw pairs: decoded once, bytes for bytes, nothing trimmed, nothing replaced.

use std::borrow::Cow;

/// The pairs of a form in the order in which they were sent. Values are bytes. A value that is not
/// UTF-8 is signed as it is, and no rule reads it.
#[derive(Debug)]
pub(in crate::source) struct Form<'a>(Vec<Pair<'a>>);

type Pair<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// A form of more pairs is refused whole: sorting is bounded, and Twilio sends some forty.
pub(in crate::source) const PAIRS_MAX: usize = 1000;

impl<'a> Form<'a> {
    /// `None`: more than [`PAIRS_MAX`] pairs.
    pub(in crate::source) fn parse(body: &'a [u8]) -> Option<Self> {
        let mut pairs = Vec::with_capacity(32);
        for pair in body.split(|&b| b == b'&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == PAIRS_MAX {
                return None;
            }
            let (name, value) = pair
                .iter()
                .position(|&b| b == b'=')
                .map_or((pair, &pair[pair.len()..]), |at| (&pair[..at], &pair[at + 1..]));
            pairs.push((decode_form(name), decode_form(value)));
        }
        Some(Self(pairs))
    }

    pub(in crate::source) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(in crate::source) fn pairs(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    /// Pieces of what Twilio signs behind the URL: names in byte order, values of one name in byte
    /// order, a pair that occurs twice once.
    pub(in crate::source) fn signed_parts(&self) -> Vec<&[u8]> {
        let mut pairs: Vec<(&[u8], &[u8])> = self.pairs().collect();
        pairs.sort_unstable();
        pairs.dedup();
        pairs.into_iter().flat_map(|(name, value)| [name, value]).collect()
    }
}

/// A name or a value of a form or a query, as bytes.
#[must_use]
pub fn decode_form(text: &[u8]) -> Cow<'_, [u8]> {
    let Some(first) = text.iter().position(|&b| matches!(b, b'+' | b'%')) else {
        return Cow::Borrowed(text);
    };
    let mut decoded = Vec::with_capacity(text.len());
    decoded.extend_from_slice(&text[..first]);
    let mut rest = &text[first..];
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        decoded.push(match byte {
            b'+' => b' ',
            b'%' => match tail {
                [high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                    rest = tail;
                    nibble(*high) << 4 | nibble(*low)
                }
                // Not an escape: the official SDKs leave it standing.
                _ => b'%',
            },
            byte => byte,
        });
    }
    Cow::Owned(decoded)
}

const fn nibble(hex_digit: u8) -> u8 {
    match hex_digit {
        b'0'..=b'9' => hex_digit - b'0',
        _ => (hex_digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(body: &[u8]) -> Vec<(Vec<u8>, Vec<u8>)> {
        Form::parse(body)
            .expect("few pairs")
            .pairs()
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect()
    }

    #[test]
    fn pairs_are_decoded_once_and_kept_as_they_are() {
        type Pairs = &'static [(&'static [u8], &'static [u8])];
        let cases: &[(&[u8], Pairs)] = &[
            (b"", &[]),
            (b"&&", &[]),
            (b"a=1&b", &[(b"a", b"1"), (b"b", b"")]),
            (b"a==", &[(b"a", b"=")]),
            (b"=x", &[(b"", b"x")]),
            (b"a=%2B%2520+%zz%4", &[(b"a", b"+%20 %zz%4")]),
            (b"a=%00%FF", &[(b"a", b"\0\xff")]),
            (b"a=%c3%A9", &[(b"a", b"\xc3\xa9")]),
            (b"b=2&a=1&b=1", &[(b"b", b"2"), (b"a", b"1"), (b"b", b"1")]),
        ];
        for (body, expected) in cases {
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, value)| (name.to_vec(), value.to_vec()))
                .collect();
            assert_eq!(pairs(body), expected, "{}", String::from_utf8_lossy(body));
        }
    }

    #[test]
    fn a_form_holds_a_thousand_pairs_and_no_more() {
        assert_eq!(pairs("a=1&".repeat(PAIRS_MAX).as_bytes()).len(), PAIRS_MAX);
        assert!(Form::parse("a=1&".repeat(PAIRS_MAX + 1).as_bytes()).is_none());
    }
}
