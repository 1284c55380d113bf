//! Faults: the closed list of failures that a client may see. The code is part of the API's contract.

/// Whose fault it is and whether trying again helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The request is wrong; the same request fails again.
    Caller,
    /// It may work later.
    Transient,
    /// Too much; it works later.
    Throttled,
    /// It will not work without an operator.
    Permanent,
    /// Our mistake.
    Bug,
}

macro_rules! faults {
    ($($variant:ident = $code:literal, $status:literal, $class:ident, $title:literal;)+) => {
        /// A stable, documented problem code (`code` of the problem+json, RFC 9457).
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum FaultCode { $(#[doc = $title] $variant,)+ }

        impl FaultCode {
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];
            pub const fn code(self) -> &'static str { match self { $(Self::$variant => $code,)+ } }
            pub const fn status(self) -> u16 { match self { $(Self::$variant => $status,)+ } }
            pub const fn class(self) -> Class { match self { $(Self::$variant => Class::$class,)+ } }
            pub const fn title(self) -> &'static str { match self { $(Self::$variant => $title,)+ } }
        }
    };
}

faults! {
    BadRequest = "bad-request", 400, Caller, "The request could not be read.";
    InvalidJson = "invalid-json", 400, Caller, "The body is not valid JSON.";
    ValidationFailed = "validation-failed", 400, Caller, "A field has a value that is not allowed.";
    InvalidRecipient = "invalid-recipient", 400, Caller, "The recipient is neither a phone number nor a WhatsApp address.";
    InvalidInstanceId = "invalid-instance-id", 400, Caller, "The instance id has characters that are not allowed, or a wrong length.";
    InvalidAsyncHeader = "invalid-async-header", 400, Caller, "X-Async must be true, 1, false or 0.";
    InvalidCorrelationId = "invalid-correlation-id", 400, Caller, "X-Correlation-Id has characters that are not allowed, or a wrong length.";
    InvalidIdempotencyKey = "invalid-idempotency-key", 400, Caller, "Idempotency-Key must be 1 to 255 printable ASCII characters.";
    InstanceAmbiguous = "instance-ambiguous", 400, Caller, "There is more than one instance; name one with X-Instance-Id.";
    Unauthorized = "unauthorized", 401, Caller, "An API key is needed: X-API-Key, or Authorization: Bearer.";
    Forbidden = "forbidden", 403, Caller, "This API key may not do that.";
    NotFound = "not-found", 404, Caller, "There is nothing at this path.";
    InstanceNotFound = "instance-not-found", 404, Caller, "There is no such instance.";
    WebhookNotFound = "webhook-not-found", 404, Caller, "The instance has no webhook.";
    EndpointNotFound = "endpoint-not-found", 404, Caller, "There is no such endpoint.";
    DeliveryNotFound = "delivery-not-found", 404, Caller, "There is no such delivery.";
    JobNotFound = "job-not-found", 404, Caller, "There is no such job.";
    EventNotFound = "event-not-found", 404, Caller, "There is no such event, or it is no longer kept.";
    DeadLetterNotFound = "dead-letter-not-found", 404, Caller, "There is no such dead letter.";
    QrNotAvailable = "qr-not-available", 404, Caller, "There is no QR code to show.";
    PluginNotFound = "plugin-not-found", 404, Caller, "There is no such plugin.";
    PluginVersionNotFound = "plugin-version-not-found", 404, Caller, "The plugin has no such version.";
    PluginInvalid = "plugin-invalid", 422, Caller, "The plugin cannot be run.";
    PluginTestsFailed = "plugin-tests-failed", 422, Caller, "The plugin does not pass its own test cases.";
    RecipientNotOnWhatsApp = "recipient-not-on-whatsapp", 422, Permanent, "The phone number is not on WhatsApp.";
    MethodNotAllowed = "method-not-allowed", 405, Caller, "This path does not take that method.";
    NotAcceptable = "not-acceptable", 406, Caller, "None of the accepted media types can be given.";
    RequestTimeout = "request-timeout", 408, Transient, "The body did not arrive in time.";
    InstanceExists = "instance-exists", 409, Caller, "There already is an instance with this id.";
    InstanceNotConnected = "instance-not-connected", 409, Transient, "The instance is not connected to WhatsApp.";
    InstanceNotPaired = "instance-not-paired", 409, Permanent, "The instance is not paired with a phone, or was logged out.";
    InstanceAlreadyPaired = "instance-already-paired", 409, Caller, "The instance is already paired; log it out first.";
    EndpointLimit = "endpoint-limit", 409, Caller, "There are as many endpoints as there may be; delete one first.";
    CorrelationIdTaken = "correlation-id-taken", 409, Caller, "Another job of this instance has this correlation id.";
    SendInProgress = "send-in-progress", 409, Transient, "A send with this idempotency key is still running.";
    PluginVersionExists = "plugin-version-exists", 409, Caller, "The plugin has another artefact or manifest of this version.";
    PluginGrantsMissing = "plugin-grants-missing", 409, Caller, "The plugin asks for more than it was given.";
    PluginConfigInvalid = "plugin-config-invalid", 409, Caller, "The plugin's settings do not fit its schema; set them first.";
    PluginNotActive = "plugin-not-active", 409, Caller, "No version of the plugin is active.";
    PluginFileMissing = "plugin-file-missing", 409, Permanent, "A file that the plugin needs was not built.";
    JobNotCancellable = "job-not-cancellable", 409, Caller, "The job has already begun or ended.";
    JobNotMovable = "job-not-movable", 409, Caller, "The job has already begun or ended, or a request waits for it.";
    JobCancelled = "job-cancelled", 409, Caller, "The job was cancelled before it began.";
    Gone = "gone", 410, Permanent, "What was asked for is no longer kept.";
    PayloadTooLarge = "payload-too-large", 413, Caller, "The body is larger than allowed.";
    UnsupportedMediaType = "unsupported-media-type", 415, Caller, "The body must be application/json.";
    IdempotencyMismatch = "idempotency-mismatch", 422, Caller, "The idempotency key was used with a different request.";
    TooManyRequests = "too-many-requests", 429, Throttled, "Too many requests.";
    Internal = "internal", 500, Bug, "Something went wrong in the gateway; the log has the request id.";
    SendRefused = "send-refused", 502, Permanent, "WhatsApp refused the message.";
    LogoutUnconfirmed = "logout-unconfirmed", 502, Transient, "WhatsApp did not confirm the logout.";
    WhatsAppUnreachable = "whatsapp-unreachable", 503, Transient, "WhatsApp could not be reached.";
    SendNotStarted = "send-not-started", 503, Transient, "The message waited too long and was cancelled; nothing was or will be sent.";
    QueueFull = "queue-full", 503, Throttled, "Too many jobs wait; nothing was accepted.";
    StorageUnavailable = "storage-unavailable", 503, Transient, "The database does not answer; nothing was accepted.";
    NotReady = "not-ready", 503, Transient, "The gateway is starting or stopping.";
    Timeout = "timeout", 503, Transient, "The gateway did not finish in time; look up what came of it before trying again.";
    ShuttingDown = "shutting-down", 503, Transient, "The gateway is stopping.";
    SendOutcomeUnknown = "send-outcome-unknown", 504, Transient, "WhatsApp has not answered yet; the job goes on under the same message id.";
    StorageFull = "storage-full", 507, Permanent, "The disk is full; nothing was accepted.";
}

/// A failure with what the client is told. `detail` never contains a source error's text.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    pub code: FaultCode,
    pub detail: Option<String>,
    /// Where in the body, as JSON pointers (RFC 6901), and what is wrong there.
    pub errors: Vec<FieldError>,
    /// Seconds after which a retry makes sense.
    pub retry_after: Option<u32>,
    /// Extension members, e.g. `message_id` and `job` of an unknown outcome.
    pub extra: Box<serde_json::Map<String, serde_json::Value>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    pub pointer: String,
    pub detail: String,
}

impl Fault {
    pub fn new(code: FaultCode) -> Self {
        Self { code, detail: None, errors: Vec::new(), retry_after: None, extra: Box::default() }
    }

    pub fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn at(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.errors.push(FieldError { pointer: pointer.into(), detail: detail.into() });
        self
    }

    pub fn retry_after(mut self, secs: u32) -> Self {
        self.retry_after = Some(secs);
        self
    }

    pub fn with(mut self, member: &str, value: impl Into<serde_json::Value>) -> Self {
        self.extra.insert(member.to_owned(), value.into());
        self
    }
}

impl From<FaultCode> for Fault {
    fn from(code: FaultCode) -> Self {
        Self::new(code)
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.detail.as_deref().unwrap_or(self.code.title()))
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_kebab_case() {
        let mut seen = std::collections::HashSet::new();
        for fault in FaultCode::ALL {
            assert!(seen.insert(fault.code()), "{} twice", fault.code());
            assert!(fault.code().bytes().all(|b| b.is_ascii_lowercase() || b == b'-'));
            assert!((400..600).contains(&fault.status()));
        }
    }
}
