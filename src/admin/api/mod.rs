//! The resources of the API, a file each. A file begins with its routes; an endpoint's refusals,
//! its documentation and its handler stand together.

mod actions;
mod assistants;
mod audit;
mod bulk;
mod cache;
mod catalog;
mod dead_events;
mod destinations;
mod endpoints;
mod events;
mod integrations;
mod keys;
mod managed_assistants;
mod operator;
mod pauses;
mod phone_numbers;
mod platform_routes;
mod quarantine;
mod rejections;
mod rules;
mod samples;
mod session;
mod settings;
mod statistics;
mod stream;

use super::AdminState;
use axum::Router;
use std::sync::Arc;

/// The routes of all resources.
pub fn routes() -> Router<Arc<AdminState>> {
    Router::new()
        .merge(integrations::routes())
        .merge(destinations::routes())
        .merge(assistants::routes())
        .merge(managed_assistants::routes())
        .merge(phone_numbers::routes())
        .merge(endpoints::routes())
        .merge(rules::routes())
        .merge(events::routes())
        .merge(actions::routes())
        .merge(bulk::routes())
        .merge(rejections::routes())
        .merge(audit::routes())
        .merge(session::routes())
        .merge(settings::routes())
        .merge(statistics::routes())
        .merge(samples::routes())
        .merge(stream::routes())
        .merge(catalog::routes())
        .merge(operator::routes())
        .merge(dead_events::routes())
        .merge(keys::routes())
        .merge(cache::routes())
        .merge(quarantine::routes())
        .merge(platform_routes::routes())
        .merge(pauses::routes())
}

/// The shapes of requests and answers, for the document of the API.
pub mod shapes {
    pub use super::{
        actions::{ActionDetail, ActionView, Resolution},
        assistants::{AssistantView, NewAssistant},
        audit::AuditView,
        bulk::{BegunView, BulkPlanView, BulkRequest, JobView, OperatorCancel, ResolvedView},
        cache::CachesView,
        catalog::{CatalogView, SampleView},
        dead_events::{DeadEventView, ReplayView},
        destinations::{DestinationChanges, DestinationTestView, DestinationView, NewDestination},
        endpoints::{EndpointChanges, EndpointDetail, EndpointView, NewEndpoint, Rotation},
        events::{EventDetail, EventView, ReplayRequest},
        integrations::{Authorize, ConnectedView, Forms, IntegrationChanges, IntegrationView, Status, TestedView},
        keys::{KeysView, RotateRequest, RotatedView},
        managed_assistants::{ManagedAssistantView, ManagedAssistants, NewManagedAssistant},
        operator::{Invalidate, Invalidated, NewOrganisation, OrganisationView},
        pauses::{PauseRequest, PausedView, PausesView, ResumeRequest, ResumedView},
        phone_numbers::{NewNumber, NumberView},
        platform_routes::{ApprovedRoute, ApprovedRouteView},
        quarantine::{QuarantineReplay, QuarantineView},
        rejections::RejectionView,
        rules::{DamagedRuleView, DryRunRequest, DryRunView, RuleView, StoredDryRunRequest},
        samples::SamplesView,
        session::Me,
        settings::{RETENTION_DAYS_MAX, SettingsView},
        statistics::StatisticsView,
    };
}
