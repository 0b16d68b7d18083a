//! Lists in pages: `limit`, and a cursor that callers can neither change nor use for another list.
//!
//! **Invariant:** a cursor is a position with a MAC over (organisation, list, filters, position).
//! A cursor of another list is `cursor_invalid`. The key of the MAC comes from the keyring, so that
//! cursors stay valid after restarts and new keys, and at every instance.

use super::{
    problem::{Code, Problem},
    view::Time,
};
use crate::{
    domain::{Fingerprint, INSTALLATION, OrgId, Period},
    vault::Vault,
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::Uri;
use serde::Serialize;
use std::{fmt::Display, str::FromStr};

pub const LIMIT_MAX: u32 = 200;
const LIMIT_DEFAULT: u32 = 50;
const CURSOR_BYTES_MAX: usize = 1024;

/// The query of a request, each name once. A parameter that no handler took is an error.
pub struct Params {
    pairs: Vec<(String, String)>,
}

impl Params {
    /// # Errors
    /// Not a query, or a name that occurs twice.
    pub fn of(uri: &Uri) -> Result<Self, Problem> {
        let axum::extract::Query(pairs) =
            axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri).map_err(|_| {
                Problem::new(Code::InvalidQuery).detail("The query is not in the form name=value&name=value.")
            })?;
        for (i, (name, _)) in pairs.iter().enumerate() {
            if pairs[..i].iter().any(|(earlier, _)| earlier == name) {
                return Err(Problem::field(
                    Code::InvalidQuery,
                    super::body::shown_name(name),
                    "occurs more than once",
                ));
            }
        }
        Ok(Self { pairs })
    }

    pub fn take(&mut self, name: &str) -> Option<String> {
        let at = self.pairs.iter().position(|(known, _)| known == name)?;
        Some(self.pairs.swap_remove(at).1)
    }

    /// # Errors
    /// It is there and does not parse. The type's own words, which never repeat the text.
    pub fn take_parsed<T: FromStr<Err: Display>>(&mut self, name: &'static str) -> Result<Option<T>, Problem> {
        self.take(name)
            .map(|text| {
                text.parse()
                    .map_err(|error: T::Err| Problem::field(Code::InvalidQuery, name, error.to_string()))
            })
            .transpose()
    }

    /// # Errors
    /// It is there and is neither `true` nor `false`.
    pub fn take_flag(&mut self, name: &'static str) -> Result<bool, Problem> {
        self.take_flag_or(name, false)
    }

    /// Like [`Params::take_flag`], with a default for a flag that is left out.
    ///
    /// # Errors
    /// It is there and is neither `true` nor `false`.
    pub fn take_flag_or(&mut self, name: &'static str, otherwise: bool) -> Result<bool, Problem> {
        match self.take(name).as_deref() {
            None => Ok(otherwise),
            Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Problem::field(Code::InvalidQuery, name, "expected true or false")),
        }
    }

    /// The parameters `since` and `until`, moments of RFC 3339.
    ///
    /// # Errors
    /// One of them is no moment.
    pub fn take_period(&mut self) -> Result<Period, Problem> {
        let mut take = |name: &'static str| {
            let Some(text) = self.take(name) else { return Ok(None) };
            // A plus that nobody encoded is a blank here.
            Time::parse(&text.replace(' ', "+"))
                .map(Some)
                .map_err(|problem| Problem::field(Code::InvalidQuery, name, problem))
        };
        Ok(Period {
            since: take("since")?,
            until: take("until")?,
        })
    }

    /// A text of `1` to `bytes_max` bytes.
    ///
    /// # Errors
    /// It is empty, longer, or has a NUL.
    pub fn take_text(&mut self, name: &'static str, bytes_max: usize) -> Result<Option<String>, Problem> {
        let Some(text) = self.take(name) else { return Ok(None) };
        if text.is_empty() || text.len() > bytes_max || text.contains('\0') {
            return Err(Problem::field(
                Code::InvalidQuery,
                name,
                format!("expected 1 to {bytes_max} bytes without NUL"),
            ));
        }
        Ok(Some(text))
    }

    /// # Errors
    /// A parameter that is not known here.
    pub fn finish(self) -> Result<(), Problem> {
        match self.pairs.first() {
            None => Ok(()),
            Some((name, _)) => Err(Problem::field(
                Code::InvalidQuery,
                super::body::shown_name(name),
                "is not a known parameter here",
            )),
        }
    }
}

/// Which page of which list is asked for.
#[derive(Debug)]
pub struct Page<P> {
    pub limit: u32,
    /// The last row that was shown.
    pub after: Option<P>,
    org: Option<OrgId>,
    list: &'static str,
    filters: String,
}

#[derive(Serialize)]
pub struct Listed<T> {
    pub data: Vec<T>,
    /// `null` on the last page.
    pub next_cursor: Option<String>,
}

impl<P: FromStr + Display> Page<P> {
    /// Takes `limit` and `cursor`. `org` is `None` for operators' lists; `filters` holds everything
    /// else that decides what the list shows.
    ///
    /// # Errors
    /// A limit outside 1 to 200, or a cursor that was not made for this list.
    pub fn take(
        params: &mut Params,
        vault: &Vault,
        org: Option<OrgId>,
        list: &'static str,
        filters: String,
    ) -> Result<Self, Problem> {
        let mut page = Self {
            limit: LIMIT_DEFAULT,
            after: None,
            org,
            list,
            filters,
        };
        if let Some(text) = params.take("limit") {
            page.limit = Some(&text)
                .filter(|text| text.len() <= 3 && text.bytes().all(|c| c.is_ascii_digit()))
                .and_then(|text| text.parse().ok())
                .filter(|limit| (1..=LIMIT_MAX).contains(limit))
                .ok_or_else(|| {
                    Problem::field(
                        Code::InvalidQuery,
                        "limit",
                        format!("expected a whole number from 1 to {LIMIT_MAX}"),
                    )
                })?;
        }
        if let Some(cursor) = params.take("cursor") {
            page.after = Some(page.open(vault, &cursor).ok_or(Problem::new(Code::CursorInvalid))?);
        }
        Ok(page)
    }

    /// How many rows to load. One row more than the page shows that there is a next page.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.limit + 1
    }

    /// The answer. The next page starts after the `position` of the last row.
    #[must_use]
    pub fn answer<R, T>(
        &self,
        vault: &Vault,
        mut rows: Vec<R>,
        position: impl Fn(&R) -> P,
        view: impl FnMut(R) -> T,
    ) -> Listed<T> {
        let limit = self.limit as usize;
        let next_cursor = (rows.len() > limit).then(|| self.seal(vault, &position(&rows[limit - 1]).to_string()));
        rows.truncate(limit);
        Listed {
            data: rows.into_iter().map(view).collect(),
            next_cursor,
        }
    }

    /// Like [`Page::answer`], for lists in which two rows may share a position. Both stand on the
    /// same page.
    #[must_use]
    pub fn answer_whole<R, T>(
        &self,
        vault: &Vault,
        rows: Vec<R>,
        position: impl Fn(&R) -> P,
        view: impl Fn(R) -> T,
    ) -> Listed<T>
    where
        P: PartialEq,
    {
        let limit = self.limit as usize;
        if rows.len() > limit && position(&rows[limit - 1]) == position(&rows[limit]) {
            // One row more than was asked for, and a cursor behind it: the rest is the next page's.
            let next_cursor = Some(self.seal(vault, &position(&rows[limit]).to_string()));
            return Listed {
                data: rows.into_iter().map(view).collect(),
                next_cursor,
            };
        }
        self.answer(vault, rows, position, view)
    }

    fn seal(&self, vault: &Vault, position: &str) -> String {
        let (org, bound) = self.bound(position);
        URL_SAFE_NO_PAD.encode(format!("{}.{position}", vault.fingerprint(org, bound.as_bytes()).0))
    }

    fn open(&self, vault: &Vault, cursor: &str) -> Option<P> {
        let bytes = Some(cursor)
            .filter(|cursor| cursor.len() <= CURSOR_BYTES_MAX)
            .and_then(|cursor| URL_SAFE_NO_PAD.decode(cursor).ok())?;
        let text = String::from_utf8(bytes).ok()?;
        let (mac, position) = text.split_once('.')?;
        let (org, bound) = self.bound(position);
        if vault.is_fingerprint_of(&Fingerprint(mac.into()), org, bound.as_bytes()) {
            position.parse().ok()
        } else {
            None
        }
    }

    /// The text that the MAC is made over.
    fn bound(&self, position: &str) -> (OrgId, String) {
        let org = self.org.unwrap_or(INSTALLATION);
        // Lengths in front: no two different (list, filters, position) make the same text.
        (
            org,
            format!(
                "cursor:{}:{}{}:{}{position}",
                self.list.len(),
                self.list,
                self.filters.len(),
                self.filters
            ),
        )
    }
}
