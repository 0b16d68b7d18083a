// Made by types/make.mjs from schemas/openapi.json.

export type AccountView = {
  "id": string;
  "name"?: string | null;
};

export type Accounts = {
  "before"?: string | null;
  "now"?: string | null;
};

export type ActionDetail = ActionView & {
  "attempts_made": Array<AttemptView>;
  "request"?: Record<string, any>;
};

export type ActionKindView = {
  "action": string;
  "expires_after_seconds_default": number;
  "parameters": Array<ParameterView>;
  "provider": Provider;
  "purpose": string;
};

export type ActionState = "pending" | "running" | "succeeded" | "waiting" | "unknown" | "parked" | "suppressed" | "cancelled" | "dead";

export type ActionView = {
  "action": string;
  "attempts": number;
  "attempts_counted": number;
  "can": Array<string>;
  "cause"?: Cause | null;
  "created_at": Time;
  "credential"?: string | null;
  "delivery"?: DeliveryView | null;
  "detail"?: string | null;
  "due_at"?: Time | null;
  "event_id": string;
  "expires_at": Time;
  "http_status"?: number | null;
  "id": string;
  "look_ups": number;
  "provider": string;
  "provider_code"?: string | null;
  "provider_ref"?: string | null;
  "rule_id": string;
  "rule_name": string;
  "series": number;
  "state": ActionState;
  "updated_at": Time;
};

export type ActionsView = {
  "dead": number;
  "parked": number;
  "unknown": number;
  "waiting": number;
};

export type ApprovedRoute = {
  "account_id"?: string | null;
  "assistant_id"?: string | null;
  "managed_by"?: ManagedBy | null;
  "number"?: string | null;
  "org_id": string;
  "provider"?: Provider | null;
  "provider_number_id"?: string | null;
};

export type ApprovedRouteView = {
  "assistant_id"?: string | null;
  "at": Time;
  "managed_by"?: ManagedBy | null;
  "number"?: string | null;
  "org_id": string;
  "proof": string;
};

export type AssistantRole = "inbound" | "outbound";

export type AssistantView = {
  "assistant_id": string;
  "created_at": Time;
  "etag": string;
  "managed_by"?: string | null;
  "name"?: string | null;
  "proof"?: string | null;
  "proven_at"?: Time | null;
  "reason"?: string | null;
  "role"?: AssistantRole | null;
  "state": RouteState;
  "usable": boolean;
  "version": number;
};

export type AttemptView = {
  "cause"?: string | null;
  "credential_version"?: number | null;
  "detail"?: string | null;
  "ended_at"?: Time | null;
  "http_status"?: number | null;
  "look_up": boolean;
  "number": number;
  "outcome"?: string | null;
  "provider_code"?: string | null;
  "started_at": Time;
};

export type AuditView = {
  "actor": string;
  "address"?: string | null;
  "after"?: Record<string, any> | null;
  "at": Time;
  "before"?: Record<string, any> | null;
  "fields": Array<string>;
  "id": string;
  "secrets": Array<string>;
  "target_id": string;
  "target_kind": string;
  "verb": string;
};

export type Authorize = {
  "expires_at": Time;
  "url": string;
};

export type BacklogView = {
  "is_whole": boolean;
  "oldest_at"?: Time | null;
  "pending": number;
  "unknown": number;
  "waiting": number;
};

export type BegunJobView = {
  "id": string;
  "org_id": string;
};

export type BegunView = {
  "count": number;
  "jobs": Array<BegunJobView>;
};

export type BulkCountView = {
  "count": number;
  "org_id": string;
  "provider": string;
  "state": ActionState;
};

export type BulkPlanView = {
  "by": Array<BulkCountView>;
  "count": number;
};

export type BulkRequest = {
  "cause"?: Cause | null;
  "provider"?: Provider | null;
  "rule_id"?: string | null;
  "since"?: string | null;
  "state"?: ActionState | null;
  "until"?: string | null;
};

export type CacheUseView = {
  "hit_rate"?: number | null;
  "hits": number;
  "misses": number;
  "name": string;
};

export type CacheView = {
  "entries": number;
  "entries_max": number;
  "hit_rate"?: number | null;
  "hits": number;
  "misses": number;
  "name": string;
};

export type CachesView = {
  "caches": Array<CacheView>;
  "instance": string;
};

export type CatalogView = {
  "actions": Array<ActionKindView>;
  "limits": LimitsView;
  "names": Array<NameView>;
  "sources": Array<SourceView>;
};

export type Cause = "accepted" | "looked_up" | "called_back" | "resolved_by_hand" | "rate_limited" | "provider_unavailable" | "connect_failed" | "no_answer" | "lease_ended" | "not_connected" | "credential_refused" | "undecryptable" | "misconfigured" | "invalid_request" | "invalid_recipient" | "opted_out" | "address_not_allowed" | "endpoint_gone" | "redirect_not_followed" | "template_failed" | "template_limit" | "unreadable_body" | "paused" | "quiet_hours" | "expired" | "attempts_used_up" | "ambiguous" | "look_up_forbidden" | "account_replaced" | "interrupted" | "hop_limit" | "day_budget" | "other";

export type ConnectedView = IntegrationView & {
  "warnings": Array<FieldError>;
};

export type CredentialError = {
  "code": string | null;
  "http_status": number | null;
  "message": string;
};

export type DamagedRuleView = {
  "damaged": boolean;
  "id"?: string | null;
  "problem": string;
};

export type DeadEventView = {
  "dead_at": Time;
  "id": string;
  "org_id"?: string | null;
  "reason": string;
  "received_at": Time;
  "source"?: string | null;
  "type"?: string | null;
};

export type DeliveryStatus = "sent" | "delivered" | "read" | "undelivered" | "failed";

export type DeliveryView = {
  "at": Time;
  "code"?: string | null;
  "detail"?: string | null;
  "status": DeliveryStatus;
};

export type DestinationChanges = {
  "url": string;
};

export type DestinationTestView = {
  "cause"?: string | null;
  "detail"?: string | null;
  "http_status"?: number | null;
  "is_accepted": boolean;
  "took_ms": number;
};

export type DestinationView = {
  "cause"?: string | null;
  "created_at": Time;
  "error"?: CredentialError | null;
  "etag": string;
  "last_four"?: string | null;
  "last_used_at"?: Time | null;
  "name": string;
  "secret"?: string | null;
  "secrets": number;
  "state": IntegrationState;
  "url"?: string | null;
  "version": number;
};

export type DryRunRequest = {
  "event_id"?: string | null;
  "sample"?: SampleEvent | null;
  "spec": RuleSpec;
};

export type DryRunView = {
  "held_until"?: Time | null;
  "outcome": "planned";
  "parameters": Record<string, any>;
  "warnings": Array<FieldError>;
} | {
  "field": string;
  "outcome": "not_matched";
} | {
  "cause": string;
  "detail": string;
  "errors": Array<FieldError>;
  "outcome": "failed";
};

export type EndpointChanges = {
  "ignored_types"?: Array<string> | null;
  "name"?: string | null;
};

export type EndpointDetail = EndpointView & {
  "secret"?: string | null;
};

export type EndpointView = {
  "created_at": Time;
  "etag": string;
  "id": string;
  "ignored_types": Array<string>;
  "name": string;
  "path": string;
  "secrets": Array<SecretView>;
  "source": Source;
  "url"?: string | null;
  "version": number;
};

export type EventAction = {
  "action": string;
  "cause"?: Cause | null;
  "id": string;
  "rule_id": string;
  "rule_name": string;
  "series": number;
  "state": ActionState;
};

export type EventDetail = EventFields & {
  "actions": Array<EventAction>;
  "body"?: Record<string, any>;
  "can": Array<string>;
  "content_type": string;
  "headers": Array<HeaderView>;
  "hops": number;
  "path": string;
  "query": string;
  "secret_id"?: string | null;
};

export type EventFields = {
  "body_bytes": number;
  "dead_reason"?: string | null;
  "endpoint_id"?: string | null;
  "id": string;
  "received_at": Time;
  "source": string;
  "subject": string;
  "time": Time;
  "type": string;
};

export type EventTypeView = {
  "event_type": string;
  "samples": Array<string>;
  "type": string;
};

export type EventView = EventFields & {
  "actions": Record<string, number>;
};

export type ExternalId = {
  "kind": string;
  "value": string;
};

export type FieldError = {
  "field": string;
  "problem": string;
};

export type FieldView = {
  "example": string;
  "expected": string;
  "help": string;
  "help_url": string;
  "label": string;
  "name": string;
  "pattern": string;
  "required": boolean;
  "secret": boolean;
};

export type FiguresView = {
  "actions": number;
  "backlog"?: number | null;
  "dead": number;
  "events": number;
  "from": Time;
  "latency_ms"?: LatencyView | null;
  "retries": number;
  "succeeded": number;
};

export type FormView = {
  "available": boolean;
  "connect": string;
  "fields": Array<FieldView>;
  "help_url": string;
  "name": string;
  "one_of": Array<Array<string>>;
  "provider": Provider;
  "verify": Array<ProbeView>;
  "webhook_url"?: string | null;
};

export type Forms = {
  "providers": Array<FormView>;
};

export type HeaderView = {
  "name": string;
  "value": string;
};

export type IdView = {
  "kind": string;
  "value": string;
};

export type InstanceView = {
  "id": string;
  "keys": Array<string>;
  "name": string;
  "roles": string;
  "seals_with": string;
  "seen_at": Time;
  "started_at": Time;
};

export type IntegrationChanges = {
  "rotate_after_days": number;
};

export type IntegrationState = "not_connected" | "connected" | "unverified" | "limited" | "failing" | "needs_reconnecting" | "undecryptable";

export type IntegrationView = {
  "account"?: AccountView | null;
  "actions": ActionsView;
  "age_days"?: number | null;
  "cause"?: string | null;
  "checked_at"?: Time | null;
  "connected": boolean;
  "error"?: CredentialError | null;
  "etag"?: string | null;
  "first_failed_at"?: Time | null;
  "id"?: string | null;
  "last_four"?: string | null;
  "last_problem"?: ProblemView | null;
  "last_used_at"?: Time | null;
  "last_verified_at"?: Time | null;
  "missing"?: string | null;
  "next_try_at"?: Time | null;
  "not_checked"?: NotCheckedView | null;
  "provider": Provider;
  "rotate_after_days"?: number | null;
  "rotation_due": boolean;
  "secrets_set": Array<string>;
  "settings": Record<string, string>;
  "signing_secrets": Array<SecretView>;
  "state": IntegrationState;
  "version"?: number | null;
};

export type Invalidate = {
  "org_id": string;
};

export type Invalidated = {
  "org_id": string;
};

export type JobView = {
  "actor": string;
  "done": number;
  "ended_at"?: Time | null;
  "id": string;
  "planned": number;
  "skipped": number;
  "started_at": Time;
  "state": string;
  "updated_at": Time;
  "verb": string;
};

export type KeyView = {
  "data_keys": number;
  "events": number;
  "instances": number;
  "is_primary": boolean;
  "key": string;
  "may_leave": boolean;
  "seals_max": number;
};

export type KeysView = {
  "instances": Array<InstanceView>;
  "keys": Array<KeyView>;
  "primary"?: string | null;
  "set_aside": Array<SetAsideView>;
  "since"?: Time | null;
};

export type LatencyView = {
  "p50": number;
  "p95": number;
};

export type LimitsView = {
  "expires_after_seconds_max": number;
  "expires_after_seconds_min": number;
  "name_characters_max": number;
  "parameters_bytes_max": number;
  "template_bytes_max": number;
};

export type ManagedAssistantState = "making" | "in_step" | "drifted" | "missing";

export type ManagedAssistantView = {
  "assistant": Record<string, any>;
  "assistant_id"?: string | null;
  "checked_at"?: Time | null;
  "created_at": Time;
  "drift": Array<string>;
  "endpoint_id": string;
  "error"?: string | null;
  "etag": string;
  "name": string;
  "role": AssistantRole;
  "state": ManagedAssistantState;
  "version": number;
};

export type ManagedAssistants = {
  "data": Array<ManagedAssistantView>;
};

export type ManagedBy = "platform";

export type Me = {
  "can": Array<string>;
  "csrf_token"?: string | null;
  "expires_at": Time;
  "organisation"?: OrganisationOfMe | null;
  "role": string;
  "subject": string;
};

export type NameView = {
  "help": string;
  "members": Array<string>;
  "name": string;
  "source"?: Source | null;
};

export type NewAssistant = {
  "assistant_id": string;
  "name"?: string | null;
  "role"?: AssistantRole | null;
};

export type NewCredential = {
  "accountSid"?: string | null;
  "account_sid"?: string | null;
  "apiKey"?: string | null;
  "api_key"?: string | null;
  "api_key_secret"?: string | null;
  "api_key_sid"?: string | null;
  "authToken"?: string | null;
  "auth_token"?: string | null;
  "auth_token_secondary"?: string | null;
  "from"?: string | null;
  "phoneNumber"?: string | null;
  "phone_number"?: string | null;
  "webhookSecret"?: string | null;
  "webhook_secret"?: string | null;
};

export type NewDestination = {
  "name": string;
  "url": string;
};

export type NewEndpoint = {
  "ignored_types"?: Array<string>;
  "name": string;
  "plan"?: any;
  "secret"?: string | null;
  "source": Source;
};

export type NewManagedAssistant = {
  "assistant": Record<string, any>;
  "name": string;
};

export type NewNumber = {
  "number": string;
  "provider"?: NumberProvider;
};

export type NewOrganisation = {
  "id"?: string | null;
  "name": string;
};

export type NotCheckedView = {
  "cause": Cause;
  "code"?: string | null;
  "detail": string;
  "http_status"?: number | null;
  "try_again_at": Time;
};

export type NumberProvider = "twilio" | "vapi";

export type NumberView = {
  "account_id"?: string | null;
  "created_at": Time;
  "etag": string;
  "managed_by"?: string | null;
  "number": string;
  "proof"?: string | null;
  "proven_at"?: Time | null;
  "provider": Provider;
  "provider_number_id"?: string | null;
  "reason"?: string | null;
  "sms_enabled"?: boolean | null;
  "sms_hint"?: string | null;
  "sms_read_at"?: Time | null;
  "state": RouteState;
  "usable": boolean;
  "version": number;
};

export type OpeningHours = {
  "friday"?: Array<{
    "from": string;
    "until": string;
  }>;
  "monday"?: Array<{
    "from": string;
    "until": string;
  }>;
  "saturday"?: Array<{
    "from": string;
    "until": string;
  }>;
  "sunday"?: Array<{
    "from": string;
    "until": string;
  }>;
  "thursday"?: Array<{
    "from": string;
    "until": string;
  }>;
  "tuesday"?: Array<{
    "from": string;
    "until": string;
  }>;
  "wednesday"?: Array<{
    "from": string;
    "until": string;
  }>;
};

export type OperatorCancel = {
  "all"?: boolean | null;
  "org_id"?: string | null;
  "provider"?: Provider | null;
  "rule_id"?: string | null;
};

export type OrganisationOfMe = {
  "id": string;
  "name": string;
};

export type OrganisationView = {
  "created_at": Time;
  "id": string;
  "is_active": boolean;
  "name": string;
};

export type ParameterView = {
  "example": string;
  "help": string;
  "multiline": boolean;
  "name": string;
  "required": boolean;
  "type": string;
};

export type PauseRequest = {
  "all"?: boolean | null;
  "org_id"?: string | null;
  "provider"?: Provider | null;
  "reason": string;
  "rule_id"?: string | null;
};

export type PauseView = {
  "actor"?: string | null;
  "org_id"?: string | null;
  "provider"?: Provider | null;
  "reason": string;
  "rule_id"?: string | null;
  "scope": string;
  "since": Time;
};

export type PausedView = {
  "is_new": boolean;
};

export type PausesView = {
  "pauses": Array<PauseView>;
};

export type ProbeView = {
  "feature": string;
  "method": string;
  "path": string;
};

export type Problem = {
  "accounts"?: Accounts;
  "code": "invalid_json" | "not_the_format" | "invalid_field" | "invalid_query" | "cursor_invalid" | "if_match_invalid" | "idempotency_key_invalid" | "consent_invalid" | "unauthenticated" | "not_verified" | "forbidden" | "csrf_invalid" | "origin_not_allowed" | "not_found" | "not_served" | "method_not_allowed" | "request_timeout" | "conflict" | "account_differs" | "held_elsewhere" | "not_from_state" | "ran_again" | "of_newer_release" | "not_replayable" | "key_not_everywhere" | "limit_reached" | "not_connected" | "idempotency_key_in_use" | "precondition_failed" | "payload_too_large" | "path_too_long" | "unsupported_media_type" | "refused_by_provider" | "consent_refused" | "not_readable" | "rule_invalid" | "secret_invalid" | "address_not_allowed" | "idempotency_key_reused" | "precondition_required" | "too_many_requests" | "too_many_streams" | "rate_limited" | "internal" | "undecryptable" | "database_unavailable" | "provider_unreachable" | "token_keys_unavailable" | "streams_full" | "unavailable" | "timeout";
  "detail": string;
  "errors"?: Array<FieldError>;
  "provider"?: ProviderWords;
  "request_id": string;
  "status": number;
  "title": string;
  "type": string;
};

export type ProblemView = {
  "action_id": string;
  "at": Time;
  "cause"?: Cause | null;
  "detail"?: string | null;
};

export type Provider = "vapi" | "twilio" | "google_calendar" | "resend" | "elevenlabs" | "http";

export type ProviderWords = {
  "code"?: string | null;
  "http_status": number;
  "message": string;
  "name": string;
};

export type QuarantineReplay = {
  "org_id": string;
};

export type QuarantineView = {
  "id": string;
  "ids": Array<ExternalId>;
  "received_at": Time;
  "source": string;
  "type": string;
};

export type QuietHours = {
  "from": string;
  "until": string;
};

export type RejectionView = {
  "at": Time;
  "bytes": number;
  "cause": string;
  "claimed": boolean;
  "endpoint_id"?: string | null;
  "head"?: string | null;
  "id": string;
  "ids": Array<IdView>;
  "org_id"?: string | null;
  "signed_url"?: string | null;
  "source": string;
  "status": number;
};

export type ReplayRequest = {
  "force"?: boolean;
};

export type ReplayView = {
  "cause": string;
  "id": string;
  "series": number;
  "state": string;
};

export type Resolution = {
  "outcome": ResolvedAs;
};

export type ResolvedAs = "sent" | "resend";

export type ResolvedView = {
  "id": string;
  "org_id": string;
  "state": ActionState;
};

export type ResumeRequest = {
  "all"?: boolean | null;
  "org_id"?: string | null;
  "provider"?: Provider | null;
  "rule_id"?: string | null;
};

export type ResumedView = {
  "released": number;
  "was_paused": boolean;
};

export type RotateRequest = {
  "after"?: string | null;
  "key"?: string | null;
};

export type RotatedView = {
  "is_promoted": boolean;
  "left": number;
  "next"?: string | null;
  "primary": string;
  "rewrapped": number;
  "set_aside": Array<SetAsideView>;
};

export type Rotation = {
  "overlap_seconds"?: number | null;
  "plan"?: Record<string, any>;
  "secret"?: string | null;
};

export type RouteState = "pending" | "live" | "released";

export type RuleSpec = {
  "action": "twilio.send_sms" | "http.post" | "resend.send_email" | "google_calendar.create_event";
  "enabled"?: boolean;
  "event_type": string;
  "expires_after_seconds"?: number;
  "ignores_quiet_hours"?: boolean;
  "name": string;
  "parameters": Record<string, any>;
  "source": "vapi" | "twilio" | "elevenlabs" | "resend" | "google_calendar" | "standard";
  "when"?: string;
};

export type RuleView = RuleSpec & {
  "created_at": Time;
  "etag": string;
  "id": string;
  "updated_at": Time;
  "version": number;
  "warnings"?: Array<FieldError>;
};

export type SampleBucketView = {
  "caches": Array<CacheUseView>;
  "from": Time;
  "queue_events"?: number | null;
};

export type SampleEvent = {
  "body": Record<string, any>;
  "event_type": string;
  "headers"?: Record<string, any>;
  "query"?: string | null;
  "subject"?: string | null;
};

export type SampleView = {
  "body": Record<string, any>;
  "event_type": string;
};

export type SamplesView = {
  "bucket_seconds": number;
  "buckets": Array<SampleBucketView>;
  "has_queue": boolean;
  "instance": string;
  "over": string;
  "since": Time;
  "until": Time;
};

export type SecretView = {
  "created_at": Time;
  "id": string;
  "last_four"?: string | null;
  "last_used_at"?: Time | null;
  "not_after"?: Time | null;
  "plan": any;
};

export type SetAsideView = {
  "key": string;
  "org_id": string;
  "problem": string;
  "version": number;
};

export type SettingsChanges = {
  "opening_hours"?: OpeningHours | null;
  "quiet_hours"?: QuietHours | null;
  "retention_days"?: number | null;
  "time_zone"?: string | null;
};

export type SettingsView = {
  "damaged": Array<string>;
  "etag": string;
  "opening_hours"?: OpeningHours | null;
  "quiet_hours"?: QuietHours | null;
  "retention_days"?: number | null;
  "retention_days_max"?: number | null;
  "time_zone"?: string | null;
  "updated_at"?: Time | null;
  "version": number;
};

export type Source = "vapi" | "twilio" | "elevenlabs" | "resend" | "google_calendar" | "standard";

export type SourceView = {
  "event_types": Array<EventTypeView>;
  "source": Source;
};

export type StatisticsView = {
  "backlog": BacklogView;
  "bucket_seconds": number;
  "buckets": Array<FiguresView>;
  "counted_since"?: Time | null;
  "over": string;
  "total": FiguresView;
  "until": Time;
};

export type Status = {
  "integrations": Array<IntegrationView>;
};

export type StoredDryRunRequest = {
  "event_id"?: string | null;
  "sample"?: SampleEvent | null;
};

export type TestedView = {
  "account"?: AccountView | null;
  "missing"?: string | null;
  "provider": Provider;
  "replaces_account"?: AccountView | null;
  "state": IntegrationState;
  "warnings": Array<FieldError>;
};

export type Time = string;
