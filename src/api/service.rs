//! The parts put together: the operations, the documents, the frame around them.

use crate::auth::Keys;
use crate::config::ApiConfig;
use crate::cors::Cors;
use crate::dead_letters::DeadLettersApi;
use crate::deliveries::DeliveriesApi;
use crate::docs;
use crate::endpoints::EndpointsApi;
use crate::events::EventsApi;
use crate::frame::Frame;
use crate::handle::Handle;
use crate::instances::InstancesApi;
use crate::jobs::JobsApi;
use crate::limits::Limits;
use crate::messages::MessagesApi;
use crate::pairing::PairingApi;
use crate::plugin_form::MaxArtefact;
use crate::plugins::PluginsApi;
use crate::queue::QueueApi;
use crate::spec::{self, SpecVersion};
use crate::stream::{StreamApi, Tickets};
use crate::system::SystemApi;
use crate::webhook::WebhookApi;
use crate::webhooks::Webhooks;
use poem::endpoint::BoxEndpoint;
use poem::{EndpointExt, Route, get};
use poem_openapi::{LicenseObject, OpenApiService};

type Operations = (
    InstancesApi,
    PairingApi,
    MessagesApi,
    JobsApi,
    DeadLettersApi,
    WebhookApi,
    EndpointsApi,
    DeliveriesApi,
    EventsApi,
    StreamApi,
    PluginsApi,
    QueueApi,
    SystemApi,
);

/// The operations, in the document's order. One path lies in one of them: poem-openapi does not merge.
pub(crate) fn service(handle: &Handle, tickets: &Tickets, config: &ApiConfig) -> OpenApiService<Operations, Webhooks> {
    let handle = || handle.clone();
    let operations = (
        InstancesApi { handle: handle() },
        PairingApi { handle: handle() },
        MessagesApi { handle: handle() },
        JobsApi { handle: handle() },
        DeadLettersApi { handle: handle() },
        WebhookApi { handle: handle() },
        EndpointsApi { handle: handle() },
        DeliveriesApi { handle: handle() },
        EventsApi { handle: handle(), tickets: tickets.clone() },
        StreamApi::new(handle(), config),
        PluginsApi { handle: handle() },
        QueueApi { handle: handle() },
        SystemApi { handle: handle(), config: config.clone() },
    );
    OpenApiService::new(operations, "Kero", env!("CARGO_PKG_VERSION"))
        .summary("A self-hosted WhatsApp gateway: REST in, signed webhooks out")
        .description(spec::introduction())
        .license(LicenseObject::new("Apache-2.0").identifier("Apache-2.0"))
        .webhooks::<Webhooks>()
}

/// Everything that is served.
pub(crate) fn app(handle: Handle, config: ApiConfig) -> BoxEndpoint<'static> {
    let tickets = Tickets::default();
    let service = service(&handle, &tickets, &config);
    let public_url = config.public_url.as_deref();
    let modern = spec::document(SpecVersion::V3_1, public_url);
    let routes = Route::new()
        .at("/docs", get(docs::swagger_ui(&modern)))
        .at("/openapi-3.0.json", get(docs::json(spec::document(SpecVersion::V3_0, public_url))))
        .at("/openapi.json", get(docs::json(modern)))
        .nest("/", service);
    Frame {
        inner: routes.boxed(),
        keys: Keys { handle, admin_key_hash: config.admin_key_hash, metrics_open: config.metrics_open },
        max_artefact: MaxArtefact(config.max_artefact),
        tickets,
        limits: Limits { max_body: config.max_body, body_timeout: config.body_timeout },
        request_timeout: config.request_timeout,
        cors: Cors::new(&config.cors_origins),
        shutting_down: config.shutting_down,
        methods: spec::Methods::of_all(),
    }
    .boxed()
}
