//! The header that counts how many of our own posts led to a request:
//! `hookswitch-hops: <n>.<hex tag>` (invariant 5).
//!
//! `attempt` signs it, `action` sends it, `receiver` reads it. The caller brings the keyed hash,
//! because this room has no keys.

use subtle::ConstantTimeEq;

pub const HOPS_HEADER: &str = "hookswitch-hops";

/// The header's value for a count. `tag` is a keyed hash in hex, so that no other party can forge a
/// count.
pub fn sign_hops(hops: u8, tag: impl Fn(&[u8]) -> Box<str>) -> String {
    format!("{hops}.{}", tag(signed_text(hops).as_bytes()))
}

/// The count of a value whose tag verifies.
pub fn read_hops(value: &str, tag: impl Fn(&[u8]) -> Box<str>) -> Option<u8> {
    let (count, given) = value.split_once('.')?;
    let hops: u8 = count.parse().ok().filter(|hops: &u8| hops.to_string() == count)?;
    let expected = tag(signed_text(hops).as_bytes());
    bool::from(expected.as_bytes().ct_eq(given.as_bytes())).then_some(hops)
}

fn signed_text(hops: u8) -> String {
    format!("hops:{hops}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_signed_count_in_its_one_spelling_is_read() {
        let tag = |bytes: &[u8]| format!("{:08x}", crc32c::crc32c(bytes)).into_boxed_str();
        let signed = sign_hops(3, tag);
        assert_eq!(read_hops(&signed, tag), Some(3));
        let (_, valid) = signed.split_once('.').unwrap();
        for value in [
            "",
            "3",
            "3.",
            &format!("2.{valid}"),
            &format!("03.{valid}"),
            &format!("+3.{valid}"),
            &format!("{signed}0"),
            &format!("256.{valid}"),
        ] {
            assert_eq!(read_hops(value, tag), None, "{value}");
        }
    }
}
