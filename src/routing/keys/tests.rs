//! The table against a model: brought up to date by changes, it must say what a table loaded afresh
//! says.

use super::*;
use crate::domain::OrgId;
use proptest::prelude::*;
use std::collections::BTreeMap;

const ORGS: u8 = 4;
const VALUES: u8 = 4;

/// A database of claims: rows by their slot. Assistants have none: their key is the row's name.
#[derive(Clone, Default, Debug)]
struct Model {
    /// `(kind, slot)` to (organisation, value, live).
    rows: BTreeMap<(RouteKind, u8), (u8, u8, bool)>,
}

#[derive(Clone, Debug)]
struct Change {
    kind: RouteKind,
    org: u8,
    slot: u8,
    value: u8,
    is_live: bool,
}

impl Model {
    /// As the store writes. An organisation's row claims a value or gives it up. A claim takes the
    /// value from its live holder; only an account may have several claimants. Returns the slots
    /// that were touched.
    fn change(&mut self, change: &Change) -> Vec<(RouteKind, u8)> {
        let Change {
            kind,
            org,
            slot,
            value,
            is_live,
        } = *change;
        // Each organisation has two rows of a kind; one for its Twilio account; one a value for
        // assistants.
        let (slot, value) = match kind {
            RouteKind::TwilioAccount => (org, value),
            RouteKind::VapiAssistant => (org * VALUES + value, value),
            _ => (org * 2 + slot % 2, value),
        };
        let mut touched = vec![(kind, slot)];
        if is_live && kind != RouteKind::TwilioAccount {
            for (name, row) in &mut self.rows {
                if name.0 == kind && name.1 != slot && row.1 == value && row.2 {
                    row.2 = false;
                    touched.push(*name);
                }
            }
        }
        self.rows.insert((kind, slot), (org, value, is_live));
        touched
    }

    fn row(&self, name: (RouteKind, u8)) -> (RouteRow, OrgIndex) {
        let (org, value, is_live) = self.rows[&name];
        let slot = (name.0 != RouteKind::VapiAssistant).then(|| {
            let mut slot = [0; 16];
            slot[..2].copy_from_slice(&[name.0 as u8, name.1]);
            slot
        });
        (
            RouteRow {
                key: key(name.0, value),
                org: OrgId::from_uuid(uuid::Uuid::from_u128(org.into())),
                is_live,
                is_platform_managed: false,
                slot,
            },
            org.into(),
        )
    }

    fn expected(&self, kind: RouteKind, value: u8) -> Option<OrgIndex> {
        let mut claimants = self
            .rows
            .iter()
            .filter(|(name, row)| name.0 == kind && row.1 == value && row.2)
            .map(|(_, row)| row.0);
        let first = claimants.next()?;
        claimants.next().is_none().then_some(first.into())
    }
}

fn key(kind: RouteKind, value: u8) -> RouteKey {
    RouteKey::new(kind, &format!("id-{value}"))
}

const KINDS: [RouteKind; 3] = [
    RouteKind::VapiAssistant,
    RouteKind::TwilioNumber,
    RouteKind::TwilioAccount,
];

fn change() -> impl Strategy<Value = Change> {
    (
        prop::sample::select(&KINDS),
        0..ORGS,
        0..2_u8,
        0..VALUES,
        prop::bool::weighted(0.7),
    )
        .prop_map(|(kind, org, slot, value, is_live)| Change {
            kind,
            org,
            slot,
            value,
            is_live,
        })
}

fn apply(keys: &Keys, rows: Vec<(RouteRow, OrgIndex)>) {
    let (rows, places): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    keys.apply(&rows, &places);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn changes_lead_where_a_fresh_load_leads(
        batches in prop::collection::vec((prop::collection::vec(change(), 1..6), any::<u64>()), 1..12),
    ) {
        let (keys, mut model) = (Keys::default(), Model::default());
        for (changes, order) in batches {
            let mut touched: Vec<_> = changes.iter().flat_map(|change| model.change(change)).collect();
            touched.sort_unstable();
            touched.dedup();
            // Rows of one snapshot come in any order.
            touched.sort_by_key(|name| (u64::from(name.1) ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            apply(&keys, touched.iter().map(|name| model.row(*name)).collect());
            let fresh = Keys::default();
            apply(&fresh, model.rows.iter().filter(|(_, row)| row.2).map(|(name, _)| model.row(*name)).collect());
            for kind in KINDS {
                for value in 0..VALUES {
                    let expected = model.expected(kind, value);
                    prop_assert_eq!(keys.get(&key(kind, value)), expected, "{:?} {} by changes", kind, value);
                    prop_assert_eq!(fresh.get(&key(kind, value)), expected, "{:?} {} afresh", kind, value);
                }
            }
            prop_assert_eq!(keys.len(), fresh.len());
        }
    }
}

fn live(value: &str, org: u32) -> (RouteRow, OrgIndex) {
    let id = OrgId::from_uuid(uuid::Uuid::from_u128(org.into()));
    (
        RouteRow {
            key: RouteKey::new(RouteKind::VapiAssistant, value),
            org: id,
            is_live: true,
            is_platform_managed: false,
            slot: None,
        },
        org,
    )
}

#[test]
fn ids_are_compared_byte_for_byte_and_by_kind_up_to_their_limit() {
    let keys = Keys::default();
    let longest = "x".repeat(RouteKey::BYTES_MAX);
    apply(
        &keys,
        vec![live("Abc", 1), live(&longest, 2), live(&format!("{longest}x"), 3)],
    );
    let get = |kind, value: &str| keys.get(&RouteKey::new(kind, value));
    assert_eq!(get(RouteKind::VapiAssistant, "Abc"), Some(1));
    for other in ["abc", "Abc ", "Ab", "Abc\0", ""] {
        assert_eq!(get(RouteKind::VapiAssistant, other), None, "{other:?}");
    }
    assert_eq!(get(RouteKind::VapiPhoneNumber, "Abc"), None);
    assert_eq!(get(RouteKind::VapiAssistant, &longest), Some(2));
    assert_eq!(
        (get(RouteKind::VapiAssistant, &format!("{longest}x")), keys.len()),
        (None, 2)
    );
}

#[test]
fn a_hundred_thousand_routes_take_less_than_120_bytes_each_and_all_lead_home() {
    const ROUTES: u32 = 100_000;
    let keys = Keys::default();
    keys.reserve(ROUTES as usize);
    let rows = (0..ROUTES).map(|n| {
        let (mut row, org) = live(&format!("assistant-{n}"), n % 1000);
        // The dearest kind: each row has a slot too.
        row.slot = Some(u128::from(n).to_be_bytes());
        (row, org)
    });
    apply(&keys, rows.collect());
    assert!(
        (0..ROUTES)
            .all(|n| keys.get(&RouteKey::new(RouteKind::VapiAssistant, &format!("assistant-{n}"))) == Some(n % 1000))
    );
    assert!((0..1000).all(|n| {
        keys.get(&RouteKey::new(RouteKind::VapiAssistant, &format!("unknown-{n}")))
            .is_none()
    }));
    let bytes = keys.bytes() / ROUTES as usize;
    assert!(bytes <= 120, "{bytes} bytes a route");
}
