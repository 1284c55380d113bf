//! The form of an upload: `multipart/form-data` with a manifest, an artefact and test cases.

use crate::limits::Limits;
use crate::problem::raise;
use kero_domain::{Fault, FaultCode};
use kero_gateway::hooks::PluginUpload;
use poem::http::header;
use poem::web::Multipart;
use poem::{FromRequest, Request, RequestBody};
use poem_openapi::registry::{MetaMediaType, MetaRequest, MetaSchema, MetaSchemaRef, Registry};
use poem_openapi::{ApiExtractor, ApiExtractorType, ExtractParamOptions};

/// What is uploaded.
pub(crate) enum PluginForm {
    Own(PluginUpload),
    /// The name of one that comes with the gateway.
    Bundled(String),
}

/// The most bytes of everything but the artefact.
const REST: usize = 1024 * 1024;

/// How large an artefact may be; the frame puts it into every request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MaxArtefact(pub usize);

impl<'a> ApiExtractor<'a> for PluginForm {
    const TYPES: &'static [ApiExtractorType] = &[ApiExtractorType::RequestObject];
    type ParamType = ();
    type ParamRawType = ();

    fn register(_: &mut Registry) {}

    fn request_meta() -> Option<MetaRequest> {
        let text = |description: &'static str, schema: MetaSchema| {
            MetaSchemaRef::Inline(Box::new(MetaSchema { description: Some(description), ..schema }))
        };
        let properties = vec![
            ("manifest", text("`plugin.toml`, or the same members in JSON.", MetaSchema::new("string"))),
            (
                "artefact",
                text(
                    "The file that the manifest's `entry` names: a component, a core module with its WIT section, or a \
                     script.",
                    MetaSchema::new_with_format("string", "binary"),
                ),
            ),
            (
                "bundled",
                text(
                    "Instead of both: the name of a plugin that comes with the gateway, `evolution`, `keyword-reply` \
                     or `redact`.",
                    MetaSchema::new("string"),
                ),
            ),
        ];
        let description = "Test cases are further files, each with its path as the field's name: \
                           `cases/NAME/event.json`, `cases/NAME/verdict.json`, and so on.";
        let schema = MetaSchema { properties, description: Some(description), ..MetaSchema::new("object") };
        Some(MetaRequest {
            description: None,
            content: vec![MetaMediaType {
                content_type: "multipart/form-data",
                schema: MetaSchemaRef::Inline(Box::new(schema)),
            }],
            required: true,
        })
    }

    async fn from_request(
        request: &'a Request,
        body: &mut RequestBody,
        _: ExtractParamOptions<()>,
    ) -> poem::Result<Self> {
        let form = request.header(header::CONTENT_TYPE).is_some_and(|kind| {
            kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("multipart/form-data"))
        });
        if !form {
            let detail = "The body must be multipart/form-data with the fields manifest and artefact.";
            return Err(raise(Fault::new(FaultCode::UnsupportedMediaType).with_detail(detail)));
        }
        let (Some(limits), Some(most)) = (request.data::<Limits>(), request.data::<MaxArtefact>()) else {
            return Err(raise(FaultCode::Internal));
        };
        let limits = Limits { max_body: most.0 + REST, ..*limits };
        let bytes = limits.read(request, body).await.map_err(raise)?;
        read(request, bytes).await.map_err(raise)
    }
}

async fn read(request: &Request, bytes: Vec<u8>) -> Result<PluginForm, Fault> {
    let wrong = || Fault::new(FaultCode::BadRequest).with_detail("The form cannot be read.");
    let mut body = RequestBody::new(bytes.into());
    let mut form = <Multipart as FromRequest>::from_request(request, &mut body).await.map_err(|_| wrong())?;
    let mut upload = PluginUpload::default();
    let (mut manifest, mut artefact, mut bundled) = (None, None, None);
    while let Some(field) = form.next_field().await.map_err(|_| wrong())? {
        let name = field.name().unwrap_or_default().to_owned();
        let bytes = field.bytes().await.map_err(|_| wrong())?;
        let text = |bytes: Vec<u8>| {
            let place = format!("/{name}");
            String::from_utf8(bytes).map_err(|_| Fault::new(FaultCode::ValidationFailed).at(place, "must be UTF-8"))
        };
        match name.as_str() {
            "manifest" => manifest = Some(text(bytes)?),
            "artefact" => artefact = Some(bytes),
            "bundled" => bundled = Some(text(bytes)?),
            other => {
                let parts: Vec<&str> = other.split('/').collect();
                let ["cases", case, file] = parts[..] else {
                    let what = "is no field of this form: manifest, artefact, bundled, or cases/NAME/FILE";
                    return Err(Fault::new(FaultCode::ValidationFailed).at(format!("/{other}"), what));
                };
                upload.cases.entry(case.to_owned()).or_default().insert(file.to_owned(), bytes);
            }
        }
    }
    let required = |place: &str| Fault::new(FaultCode::ValidationFailed).at(place, "is required");
    match (bundled, manifest, artefact) {
        (Some(name), None, None) => Ok(PluginForm::Bundled(name)),
        (Some(_), ..) => {
            let what = "stands for manifest and artefact; leave those out";
            Err(Fault::new(FaultCode::ValidationFailed).at("/bundled", what))
        }
        (None, None, _) => Err(required("/manifest")),
        (None, _, None) => Err(required("/artefact")),
        (None, Some(manifest), Some(artefact)) => Ok(PluginForm::Own(PluginUpload { manifest, artefact, ..upload })),
    }
}
