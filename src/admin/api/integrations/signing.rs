//! The signing secrets that come with a credential: the same form takes both.

use super::request::{ConnectRequest, SigningChange, source_of};
use crate::{
    admin::{
        plans,
        state::{AdminState, Answer},
        web::{problem::Problem, token::Member},
    },
    domain::{Provider, Source},
    store::{
        audit::{Changes, SecretChange},
        grants::SecretsChange,
    },
};
use std::time::Duration;

/// How long a signing secret stays valid after another took its place.
const OVERLAP: Duration = Duration::from_hours(24);

/// How the organisation's own signing secrets change with this credential. `None`: they stay.
pub async fn change(
    state: &AdminState,
    member: &Member,
    request: &ConnectRequest,
    account_differs: bool,
) -> Answer<Option<SecretsChange>> {
    let Some(source) = source_of(request.provider) else {
        return Ok(None);
    };
    let signing = match &request.signing {
        SigningChange::Replace(signing) => signing,
        SigningChange::Erase => return Ok(Some(erase(state, member, source))),
        SigningChange::Keep => {
            // The auth token of the former account verifies no webhook of this account.
            let is_stale = account_differs && request.provider == Provider::Twilio;
            return Ok(is_stale.then(|| erase(state, member, source)));
        }
    };
    let added = signing.iter().map(|secret| secret.plans.len()).sum();
    plans::check_room(state, member.org, source, added).await?;
    let mut secrets = Vec::new();
    for secret in signing {
        for plan in &secret.plans {
            let sealed = plans::seal(state, member.org, None, source, plan, &secret.secret).await;
            secrets.push(sealed.map_err(|problem| at_field(problem, secret.field))?);
        }
    }
    let former = state.store.list_secrets(member.org, source, None).await?;
    let fate = SecretChange::between(!former.is_empty(), true);
    let changes = signing
        .iter()
        .fold(Changes::default(), |changes, one| changes.secret(one.field, fate));
    let audit = state.audit(member, "rotate", "secret", source, changes);
    // Secrets of another account verify no webhook of this account: they end at once.
    let others_not_after = (!account_differs).then(|| state.now() + OVERLAP);
    Ok(Some(SecretsChange {
        source,
        secrets,
        others_not_after,
        audit,
    }))
}

/// Erases all of them at once.
pub fn erase(state: &AdminState, member: &Member, source: Source) -> SecretsChange {
    let cleared = Changes::default().secret("secret", Some(SecretChange::Cleared));
    SecretsChange {
        source,
        secrets: Vec::new(),
        others_not_after: None,
        audit: state.audit(member, "erase", "secret", source, cleared),
    }
}

/// The same refusal, with the field that the person typed into.
fn at_field(mut problem: Problem, field: &str) -> Problem {
    problem
        .errors
        .iter_mut()
        .for_each(|error| field.clone_into(&mut error.field));
    problem
}
