//! Messages of Twilio's stand-in: accepting, refusing and listing them.

use super::{date, error, not_found, violated};
use crate::{
    domain::{Provider, Timestamp},
    sandbox::{AccountKind, Call, Reply, SandboxState, TwilioAccount, description, form, lock},
};
use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};

const CHARACTERS_MAX: usize = 1600;

/// An accepted message: one effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SandboxMessage {
    pub sid: String,
    pub account_sid: String,
    pub to: String,
    /// `None` where a messaging service has not chosen yet.
    pub from: Option<String>,
    pub messaging_service_sid: Option<String>,
    pub body: String,
    pub media_count: usize,
    pub status: &'static str,
    pub status_callback: Option<String>,
    pub created_at: Timestamp,
    pub sent_at: Option<Timestamp>,
}

/// A message whose status is to be posted.
pub(in crate::sandbox) struct CallbackJob {
    pub url: String,
    pub auth_token: String,
    pub position: MessagePosition,
    pub message: SandboxMessage,
}

/// A message's position; it finds the message as long as that is in the ring.
#[derive(Clone)]
pub(in crate::sandbox) struct MessagePosition {
    account_sid: String,
    number: u64,
}

struct Mailbox {
    account: TwilioAccount,
    ring: VecDeque<SandboxMessage>,
    /// The number of the first message in the ring.
    first: u64,
}

/// All accounts with their messages, each ring bounded.
pub(in crate::sandbox) struct Accounts {
    mailboxes: HashMap<String, Mailbox>,
    max: usize,
    count: u64,
}

impl Accounts {
    pub(in crate::sandbox) fn new(max: usize) -> Self {
        Self {
            mailboxes: HashMap::new(),
            max: max.max(1),
            count: 0,
        }
    }

    pub(in crate::sandbox) fn register(&mut self, accounts: Vec<TwilioAccount>) {
        for account in accounts {
            match self.mailboxes.get_mut(&account.sid) {
                Some(mailbox) => mailbox.account = account,
                None => {
                    self.mailboxes.insert(
                        account.sid.clone(),
                        Mailbox {
                            account,
                            ring: VecDeque::new(),
                            first: 0,
                        },
                    );
                }
            }
        }
    }

    pub(super) fn get(&self, sid: &str) -> Option<&TwilioAccount> {
        self.mailboxes.get(sid).map(|mailbox| &mailbox.account)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &TwilioAccount> {
        self.mailboxes.values().map(|mailbox| &mailbox.account)
    }

    pub(in crate::sandbox) fn messages(&self) -> Vec<SandboxMessage> {
        let mut all: Vec<SandboxMessage> = self
            .mailboxes
            .values()
            .flat_map(|mailbox| mailbox.ring.iter().cloned())
            .collect();
        all.sort_by(|a, b| (a.created_at, &a.sid).cmp(&(b.created_at, &b.sid)));
        all
    }

    pub(in crate::sandbox) const fn message_count(&self) -> u64 {
        self.count
    }

    pub(in crate::sandbox) fn clear(&mut self) {
        self.count = 0;
        for mailbox in self.mailboxes.values_mut() {
            mailbox.first += mailbox.ring.len() as u64;
            mailbox.ring.clear();
        }
    }

    /// Sets a message's status, if it is still there.
    pub(in crate::sandbox) fn advance(&mut self, position: &MessagePosition, status: &'static str, at: Timestamp) {
        let Some(mailbox) = self.mailboxes.get_mut(&position.account_sid) else {
            return;
        };
        let index = position
            .number
            .checked_sub(mailbox.first)
            .and_then(|index| usize::try_from(index).ok());
        if let Some(message) = index.and_then(|index| mailbox.ring.get_mut(index)) {
            message.status = status;
            message.sent_at.get_or_insert(at);
        }
    }

    fn add(&mut self, message: SandboxMessage) -> Option<MessagePosition> {
        let mailbox = self.mailboxes.get_mut(&message.account_sid)?;
        let position = MessagePosition {
            account_sid: message.account_sid.clone(),
            number: mailbox.first + mailbox.ring.len() as u64,
        };
        mailbox.ring.push_back(message);
        if mailbox.ring.len() > self.max {
            mailbox.ring.pop_front();
            mailbox.first += 1;
        }
        self.count += 1;
        Some(position)
    }
}

pub(super) fn create(state: &SandboxState, call: &Call<'_>, account: &TwilioAccount) -> Reply {
    const OPERATION: &str = "CreateMessage";
    if !call
        .header(CONTENT_TYPE)
        .starts_with("application/x-www-form-urlencoded")
        && !call.body.is_empty()
    {
        state.note(
            call,
            OPERATION,
            &["the body is not application/x-www-form-urlencoded".to_owned()],
        );
        return error(415, 20001, "Unsupported Media Type");
    }
    let form = form::parse(call.body);
    let described = description::of(Provider::Twilio).expect("Twilio is described");
    if let Some(reply) = violated(state, call, OPERATION, &described.check_form(OPERATION, &form)) {
        return reply;
    }
    let field = |name| form::get(&form, name).filter(|value| !value.is_empty());
    let (from, service, body) = (field("From"), field("MessagingServiceSid"), field("Body"));
    let media_count = form.iter().filter(|(name, _)| name == "MediaUrl").count();
    let Some(to) = field("To") else {
        return error(400, 21604, "A 'To' phone number is required.");
    };
    if let Some((code, message)) = refusal(
        account,
        to,
        from,
        service,
        body,
        media_count > 0 || field("ContentSid").is_some(),
    ) {
        return error(400, code, &message);
    }
    let message = SandboxMessage {
        sid: new_sid(media_count > 0),
        account_sid: account.sid.clone(),
        to: to.to_owned(),
        from: from.map(str::to_owned),
        messaging_service_sid: service.map(str::to_owned),
        body: body.unwrap_or_default().to_owned(),
        media_count,
        status: if service.is_some() { "accepted" } else { "queued" },
        status_callback: field("StatusCallback").map(str::to_owned),
        created_at: state.now(),
        sent_at: None,
    };
    let reply = Reply::json(201, &message_json(&message));
    take(state, account, message);
    reply
}

fn new_sid(has_media: bool) -> String {
    let kind = if has_media { "MM" } else { "SM" };
    format!("{kind}{}", uuid::Uuid::now_v7().as_simple())
}

/// Puts a message into the ring, and begins its status callbacks. The answer says `queued`; without
/// callbacks to follow, the message is delivered at once.
fn take(state: &SandboxState, account: &TwilioAccount, message: SandboxMessage) {
    let callback = message
        .status_callback
        .clone()
        .filter(|_| state.0.config.is_calling_back);
    let Some(url) = callback else {
        let delivered = SandboxMessage {
            status: "delivered",
            sent_at: Some(message.created_at),
            ..message
        };
        lock(&state.0.twilio).add(delivered);
        return;
    };
    if let Some(position) = lock(&state.0.twilio).add(message.clone()) {
        state.0.callbacks.push(CallbackJob {
            url,
            auth_token: account.auth_token.clone(),
            position,
            message,
        });
    }
}

/// Why a message is refused, in the order in which Twilio's answers show.
fn refusal(
    account: &TwilioAccount,
    to: &str,
    from: Option<&str>,
    service: Option<&str>,
    body: Option<&str>,
    has_content: bool,
) -> Option<(u32, String)> {
    let bare = to.strip_prefix("whatsapp:").unwrap_or(to);
    let is_number = bare
        .strip_prefix('+')
        .is_some_and(|digits| (7..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit()));
    if !is_number || bare == "+15005550001" || from == Some(to) {
        return Some((21211, format!("The 'To' number {to} is not a valid phone number.")));
    }
    refused_sender(account, from, service)
        .or_else(|| refused_body(body, has_content))
        .or_else(|| refused_recipient(account, to, bare))
}

fn refused_sender(account: &TwilioAccount, from: Option<&str>, service: Option<&str>) -> Option<(u32, String)> {
    match (from, service) {
        (None, None) => Some((21603, "A 'From' phone number is required.".to_owned())),
        (_, Some(service)) if !account.messaging_services.iter().any(|known| known == service) => {
            Some((21701, format!("The Messaging Service {service} does not exist.")))
        }
        (Some(from), None) if !account.numbers.iter().any(|number| number == from) => Some((
            21606,
            format!(
                "The 'From' phone number {from} is not a valid, SMS-capable inbound phone number or short code for \
                your account."
            ),
        )),
        _ => None,
    }
}

fn refused_body(body: Option<&str>, has_content: bool) -> Option<(u32, String)> {
    match body {
        None if !has_content => Some((21602, "Message body is required.".to_owned())),
        Some(body) if body.chars().count() > CHARACTERS_MAX => Some((
            21617,
            "The concatenated message body exceeds the 1600 character limit.".to_owned(),
        )),
        _ => None,
    }
}

/// `bare` is the number without its channel. Some numbers stand for a refusal, as Twilio's magic
/// numbers do.
fn refused_recipient(account: &TwilioAccount, to: &str, bare: &str) -> Option<(u32, String)> {
    if account.kind == AccountKind::Trial && !account.verified.iter().any(|verified| verified == to) {
        return Some((
            21608,
            format!("The number {to} is unverified. Trial accounts cannot send messages to unverified numbers."),
        ));
    }
    let opted_out = account.opted_out.iter().any(|number| number == to);
    match bare {
        "+15005550003" => Some((
            21408,
            format!(
                "Permission to send an SMS has not been enabled for the region indicated by the 'To' number: {to}."
            ),
        )),
        "+15005550007" => Some((
            21612,
            format!("The 'To' phone number {to} is not currently reachable using the 'From' phone number."),
        )),
        "+15005550009" => Some((21614, format!("'To' number {to} is not a valid mobile number."))),
        _ if opted_out || bare == "+15005550004" => {
            Some((21610, "Attempt to send to unsubscribed recipient".to_owned()))
        }
        _ => None,
    }
}

pub(super) fn fetch(state: &SandboxState, call: &Call<'_>, account: &TwilioAccount, sid: &str) -> Reply {
    let accounts = lock(&state.0.twilio);
    let found = accounts
        .mailboxes
        .get(&account.sid)
        .and_then(|mailbox| mailbox.ring.iter().rev().find(|message| message.sid == sid));
    found.map_or_else(|| not_found(call), |message| Reply::json(200, &message_json(message)))
}

/// Newest first, by pages; `PageToken` is the number of the message that the page begins before.
pub(super) fn list(state: &SandboxState, call: &Call<'_>, account: &TwilioAccount) -> Reply {
    const OPERATION: &str = "ListMessage";
    let query = call.query();
    let described = description::of(Provider::Twilio).expect("Twilio is described");
    if let Some(reply) = violated(state, call, OPERATION, &described.check_query(OPERATION, &query)) {
        return reply;
    }
    let get = |name: &str| form::get(&query, name);
    let number = |name: &str| get(name).and_then(|text| text.parse::<u64>().ok());
    let size = usize::try_from(number("PageSize").unwrap_or(50)).unwrap_or(50);
    let page = number("Page").unwrap_or(0);
    let before = get("PageToken")
        .and_then(|token| token.strip_prefix("PASM")?.parse::<u64>().ok())
        .unwrap_or(u64::MAX);
    let accounts = lock(&state.0.twilio);
    let Some(mailbox) = accounts.mailboxes.get(&account.sid) else {
        return not_found(call);
    };
    let mut found = mailbox
        .ring
        .iter()
        .rev()
        .zip((mailbox.first..mailbox.first + mailbox.ring.len() as u64).rev())
        .filter(|(message, number)| {
            *number < before
                && get("To").is_none_or(|to| message.to == to)
                && get("From").is_none_or(|from| message.from.as_deref() == Some(from))
                && is_sent_within(message, get("DateSent"), get("DateSent<"), get("DateSent>"))
        })
        .take(size.saturating_add(1))
        .collect::<Vec<_>>();
    let has_more = found.len() > size;
    found.truncate(size);
    let path = call.parts.uri.path();
    let link = |page, token| page_link(path, &query, size, page, token);
    let next = found
        .last()
        .filter(|_| has_more)
        .map(|(_, number)| link(page + 1, Some(*number)));
    let start = page.saturating_mul(size as u64);
    Reply::json(
        200,
        &json!({
            "end": start + (found.len() as u64).saturating_sub(1), "first_page_uri": link(0, None),
            "next_page_uri": next, "page": page, "page_size": size,
            "previous_page_uri": null, "start": start,
            "uri": call.parts.uri.path_and_query().map_or(path, |uri| uri.as_str()),
            "messages": found.into_iter().map(|(message, _)| message_json(message)).collect::<Vec<_>>(),
        }),
    )
}

/// The link to a page with the same filters.
fn page_link(path: &str, query: &[(String, String)], size: usize, page: u64, token: Option<u64>) -> String {
    let filters: Vec<(&str, &str)> = query
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "Page" | "PageToken" | "PageSize"))
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let separator = if filters.is_empty() { "" } else { "&" };
    let token = token.map(|token| format!("&PageToken=PASM{token}")).unwrap_or_default();
    let filters = crate::source::sign::form_body(&filters);
    format!("{path}?{filters}{separator}PageSize={size}&Page={page}{token}")
}

/// `DateSent` filters go by day in GMT. A message that is not sent yet has no date and matches no
/// filter.
fn is_sent_within(message: &SandboxMessage, on: Option<&str>, until: Option<&str>, from: Option<&str>) -> bool {
    if on.is_none() && until.is_none() && from.is_none() {
        return true;
    }
    let Some(sent_at) = message.sent_at else { return false };
    let day = crate::sandbox::record::rfc3339(sent_at);
    let day = &day[..day.len().min(10)];
    let is = |limit: Option<&str>, holds: fn(std::cmp::Ordering) -> bool| {
        limit.is_none_or(|limit| holds(day.cmp(limit.get(..10).unwrap_or(limit))))
    };
    is(on, std::cmp::Ordering::is_eq) && is(until, std::cmp::Ordering::is_le) && is(from, std::cmp::Ordering::is_ge)
}

fn message_json(message: &SandboxMessage) -> Value {
    let uri = format!("/2010-04-01/Accounts/{}/Messages/{}", message.account_sid, message.sid);
    json!({
        "account_sid": message.account_sid, "api_version": "2010-04-01", "body": message.body,
        "date_created": date(message.created_at),
        "date_sent": message.sent_at.map(date), "date_updated": date(message.sent_at.unwrap_or(message.created_at)),
        "direction": "outbound-api",
        "error_code": null, "error_message": null, "from": message.from,
        "messaging_service_sid": message.messaging_service_sid,
        "num_media": message.media_count.to_string(), "num_segments": segments(message).to_string(), "price": null,
        "price_unit": "USD",
        "sid": message.sid, "status": message.status, "subresource_uris": {"media": format!("{uri}/Media.json")},
        "to": message.to,
        "uri": format!("{uri}.json"),
    })
}

/// 160 characters in one segment, 153 in each of several; 70 and 67 where a character is outside of
/// ASCII (GSM-7 is a little wider).
fn segments(message: &SandboxMessage) -> usize {
    // A messaging service has not chosen a sender yet, and says 0.
    if message.messaging_service_sid.is_some() {
        return 0;
    }
    let (one, each) = if message.body.is_ascii() { (160, 153) } else { (70, 67) };
    let characters = message.body.chars().count();
    if characters <= one {
        1
    } else {
        characters.div_ceil(each)
    }
}
