//! How many posts of our own led to a request: `hookswitch-hops: <n>.<hex hmac>` (invariant 5).

use crate::{domain::OrgId, vault::Vault};
use http::HeaderMap;
use subtle::ConstantTimeEq;

pub const HOPS_HEADER: &str = "hookswitch-hops";

/// Hops by the signed header. None, or one that does not verify, counts as 0: anyone may send a
/// header.
pub(super) fn hops(headers: &HeaderMap, vault: &Vault) -> u8 {
    headers
        .get_all(HOPS_HEADER)
        .iter()
        .filter_map(|value| read(value.to_str().ok()?, vault))
        .max()
        .unwrap_or(0)
}

fn read(value: &str, vault: &Vault) -> Option<u8> {
    let (count, tag) = value.split_once('.')?;
    let hops: u8 = count.parse().ok().filter(|hops: &u8| hops.to_string() == count)?;
    bool::from(signature(hops, vault).as_bytes().ct_eq(tag.as_bytes())).then_some(hops)
}

fn signature(hops: u8, vault: &Vault) -> Box<str> {
    vault
        .fingerprint(OrgId::from_uuid(uuid::Uuid::nil()), format!("hops:{hops}").as_bytes())
        .0
}
