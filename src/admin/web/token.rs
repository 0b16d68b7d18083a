//! Which bearer tokens are accepted, and the form of their claims. Pure: keys and the time are
//! arguments.
//!
//! **Invariant:** the algorithm comes from our own key, never from the token. A claim of the wrong
//! type is refused; it never counts as an absent claim.

use crate::domain::{OrgId, Timestamp};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use std::{net::IpAddr, time::Duration};

const TOKEN_BYTES_MAX: usize = 8 << 10;
const KID_BYTES_MAX: usize = 200;
const SUBJECT_CHARS_MAX: usize = 200;
/// How far the issuer's clock may be from ours.
pub const LEEWAY: Duration = Duration::from_mins(1);
/// The last second of the year 9999. A later number is refused as a mistake.
const SECONDS_MAX: f64 = 253_402_300_799.0;

/// The rights of a token within its organisation.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    Owner,
    Admin,
    Member,
    Viewer,
}

impl Role {
    /// The names that the command line and the claim take.
    pub const ALL: [Self; 4] = [Self::Owner, Self::Admin, Self::Member, Self::Viewer];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Owner => "owner",
            Self::Admin => "admin",
            Self::Member => "member",
            Self::Viewer => "viewer",
        }
    }

    /// Byte for byte: `OWNER` is no role.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == text)
    }
}

/// A person or a program of an organisation, as its token says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    pub org: OrgId,
    pub role: Role,
    pub subject: String,
    /// Where the request came from, for the audit.
    pub address: Option<IpAddr>,
}

/// Why a token is not accepted. Callers see it, so it reveals nothing beyond their own token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TokenError {
    #[error("the token is not valid here")]
    NotValid,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    TooEarly,
    #[error("the token's issuer or audience is not this API")]
    NotForUs,
    #[error("a claim of the token is missing or has the wrong form: exp, iss, aud, sub, org_id and role are needed")]
    Claims,
}

/// A parsed token whose signature is not checked yet.
#[derive(Debug)]
pub struct UnverifiedToken<'a> {
    message: &'a str,
    claims: &'a str,
    signature: &'a str,
    algorithm: Algorithm,
    pub key_id: Option<String>,
}

/// Fields that ask us to fetch, unpack or trust a part of the token are refused, not ignored.
#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    #[serde(default)]
    typ: Field<String>,
    #[serde(default)]
    kid: Field<String>,
    #[serde(default)]
    crit: Field<serde::de::IgnoredAny>,
    #[serde(default)]
    jku: Field<serde::de::IgnoredAny>,
    #[serde(default)]
    jwk: Field<serde::de::IgnoredAny>,
    #[serde(default)]
    x5u: Field<serde::de::IgnoredAny>,
    #[serde(default)]
    x5c: Field<serde::de::IgnoredAny>,
    #[serde(default)]
    b64: Field<serde::de::IgnoredAny>,
    #[serde(default)]
    zip: Field<serde::de::IgnoredAny>,
    #[serde(default)]
    enc: Field<serde::de::IgnoredAny>,
    #[serde(default)]
    cty: Field<serde::de::IgnoredAny>,
}

/// Absent is not null: `null` is a value of the wrong type.
#[derive(Default)]
enum Field<T> {
    #[default]
    Absent,
    Present(T),
}

impl<T> Field<T> {
    fn into_option(self) -> Option<T> {
        match self {
            Self::Absent => None,
            Self::Present(value) => Some(value),
        }
    }

    const fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::Present)
    }
}

/// Parses a token.
///
/// # Errors
/// The text is not a signed JWT of three parts, or its header asks for a feature that is not
/// supported.
pub fn parse(token: &str) -> Result<UnverifiedToken<'_>, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::NotValid);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::NotValid)?;
    let (header, claims) = message
        .split_once('.')
        .filter(|(_, claims)| !claims.contains('.'))
        .ok_or(TokenError::NotValid)?;
    let header: Header = decoded(header).ok_or(TokenError::NotValid)?;
    let unwanted = [
        &header.crit,
        &header.jku,
        &header.jwk,
        &header.x5u,
        &header.x5c,
        &header.b64,
        &header.zip,
        &header.enc,
        &header.cty,
    ];
    if unwanted.into_iter().any(|field| !field.is_absent()) {
        return Err(TokenError::NotValid);
    }
    if header.typ.into_option().is_some_and(|typ| !is_jwt(&typ)) {
        return Err(TokenError::NotValid);
    }
    let key_id = header.kid.into_option();
    if key_id
        .as_ref()
        .is_some_and(|kid| kid.is_empty() || kid.len() > KID_BYTES_MAX)
    {
        return Err(TokenError::NotValid);
    }
    Ok(UnverifiedToken {
        message,
        claims,
        signature,
        algorithm: header.alg,
        key_id,
    })
}

/// A media type, whose `application/` may be left out (RFC 7515, section 4.1.9).
fn is_jwt(typ: &str) -> bool {
    let typ = typ.to_ascii_lowercase();
    matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt")
}

fn decoded<T: serde::de::DeserializeOwned>(part: &str) -> Option<T> {
    serde_json::from_slice::<Object<T>>(&URL_SAFE_NO_PAD.decode(part).ok()?)
        .ok()
        .map(|object| object.0)
}

/// Accepts an object alone: serde would also read the fields of a struct from a list, by position.
#[derive(Default)]
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OnlyMaps<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for OnlyMaps<T> {
            type Value = Object<T>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Object)
            }
        }

        deserializer.deserialize_map(OnlyMaps(std::marker::PhantomData))
    }
}

/// A key, with the only algorithm that it is used for.
#[derive(Clone)]
pub struct Key {
    pub algorithm: Algorithm,
    pub key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({:?})", self.algorithm)
    }
}

impl UnverifiedToken<'_> {
    /// Whether this key signed it, with this key's algorithm.
    #[must_use]
    pub fn is_signed_by(&self, key: &Key) -> bool {
        self.algorithm == key.algorithm
            && jsonwebtoken::crypto::verify(self.signature, self.message.as_bytes(), &key.key, key.algorithm)
                .unwrap_or(false)
    }
}

#[derive(Deserialize)]
struct RegisteredClaims {
    exp: NumericDate,
    #[serde(default)]
    nbf: Field<NumericDate>,
    /// Of no use here, but of the right form.
    #[serde(default, rename = "iat")]
    _iat: Field<NumericDate>,
    iss: String,
    aud: Audience,
    sub: String,
}

/// Seconds since the epoch, whole or with a fraction (RFC 7519, section 2).
struct NumericDate(Timestamp);

impl<'de> Deserialize<'de> for NumericDate {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        if seconds.abs() > SECONDS_MAX {
            return Err(serde::de::Error::custom("a date after the year 9999"));
        }
        let since_epoch = Duration::try_from_secs_f64(seconds.max(0.0)).map_err(serde::de::Error::custom)?;
        Ok(Self(Timestamp::from_seconds(0) + since_epoch))
    }
}

/// One text, or a list of them of which one is ours (RFC 7519, section 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    fn contains(&self, expected: &str) -> bool {
        match self {
            Self::One(audience) => audience == expected,
            Self::Many(audiences) => audiences.iter().any(|audience| audience == expected),
        }
    }
}

#[derive(Deserialize)]
struct OrgClaims {
    #[serde(default)]
    org_id: Field<String>,
    #[serde(default)]
    role: Field<serde_json::Value>,
    #[serde(default)]
    app_metadata: Field<Object<AppMetadata>>,
}

#[derive(Deserialize, Default)]
struct AppMetadata {
    #[serde(default)]
    org_id: Field<String>,
    #[serde(default)]
    role: Field<serde_json::Value>,
}

#[derive(Deserialize)]
struct OperatorClaims {
    hookswitch_role: String,
}

/// The issuer and the audience that a token must name.
#[derive(Clone, Debug)]
pub struct Expected {
    pub issuer: String,
    pub audience: String,
}

/// `exp`, `iss`, `aud`, `sub` are needed.
fn check_registered(
    token: &UnverifiedToken<'_>,
    expected: &Expected,
    now: Timestamp,
) -> Result<(String, Timestamp), TokenError> {
    let claims: RegisteredClaims = decoded(token.claims).ok_or(TokenError::Claims)?;
    if claims.iss != expected.issuer || !claims.aud.contains(&expected.audience) {
        return Err(TokenError::NotForUs);
    }
    if claims.exp.0 + LEEWAY <= now {
        return Err(TokenError::Expired);
    }
    if claims.nbf.into_option().is_some_and(|nbf| nbf.0 > now + LEEWAY) {
        return Err(TokenError::TooEarly);
    }
    let is_plain = !claims.sub.is_empty()
        && claims.sub.chars().count() <= SUBJECT_CHARS_MAX
        && !claims.sub.chars().any(char::is_control);
    if is_plain {
        Ok((claims.sub, claims.exp.0))
    } else {
        Err(TokenError::Claims)
    }
}

/// Reads the claims of an organisation's token whose signature was found good.
///
/// The organisation stands in `app_metadata.org_id` or `org_id`; where both stand, they must be
/// equal. The role is `app_metadata.role`, else `role`. The time is the token's end.
///
/// # Errors
/// Which kind of claim is wrong.
pub fn member(
    token: &UnverifiedToken<'_>,
    expected: &Expected,
    now: Timestamp,
) -> Result<(Member, Timestamp), TokenError> {
    let (subject, expires_at) = check_registered(token, expected, now)?;
    let claims: OrgClaims = decoded(token.claims).ok_or(TokenError::Claims)?;
    let Object(app) = claims.app_metadata.into_option().unwrap_or_default();
    let id = |field: Field<String>| {
        field
            .into_option()
            .map(|text| text.parse::<OrgId>().map_err(|_| TokenError::Claims))
            .transpose()
    };
    let org = match (id(app.org_id)?, id(claims.org_id)?) {
        (Some(one), Some(other)) if one != other => return Err(TokenError::Claims),
        (Some(org), _) | (None, Some(org)) => org,
        (None, None) => return Err(TokenError::Claims),
    };
    let role = app.role.into_option().or(claims.role.into_option());
    let role = role
        .as_ref()
        .and_then(serde_json::Value::as_str)
        .and_then(Role::find)
        .ok_or(TokenError::Claims)?;
    let member = Member {
        org,
        role,
        subject,
        address: None,
    };
    Ok((member, expires_at))
}

/// Reads the claims of an operator's token whose signature was found good: its subject and its end.
///
/// # Errors
/// Which kind of claim is wrong.
pub fn operator(
    token: &UnverifiedToken<'_>,
    expected: &Expected,
    now: Timestamp,
) -> Result<(String, Timestamp), TokenError> {
    let registered = check_registered(token, expected, now)?;
    let claims: OperatorClaims = decoded(token.claims).ok_or(TokenError::Claims)?;
    if claims.hookswitch_role == "operator" {
        Ok(registered)
    } else {
        Err(TokenError::Claims)
    }
}
