use kero_plugin::{Body, Context, Event, Failure, Judgement, Request, Response};

kero_plugin::delivery!(shape, judge);

/// Called once for every delivery: make of the gateway's request the one that your endpoint understands.
fn shape(event: Event, mut request: Request, _context: Context) -> Result<Request, Failure> {
    request.path = format!("{}/{}", request.path, event.name);
    if let Body::Message(message) = &event.body {
        let body = serde_json::json!({"who": message.sender, "said": message.text});
        request.body = body.to_string().into_bytes();
    }
    Ok(request)
}

/// Called for every answer. `usual` is how the gateway would judge.
fn judge(_: Request, response: Response, usual: Judgement, _context: Context) -> Result<Judgement, Failure> {
    Ok(if response.status == 409 { Judgement::Success } else { usual })
}
