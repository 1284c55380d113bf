//! One question to a hook, and its answer, whatever the WIT version.

use crate::event::Event;
use crate::verdict::{Judgement, Request, Response, Verdict};
use std::sync::Arc;

pub(crate) struct Work {
    pub(crate) event: Arc<Event>,
    pub(crate) about: Arc<About>,
    pub(crate) dry_run: bool,
    /// At most the hook's own limit; less when a chain has used up its time.
    pub(crate) wall: std::time::Duration,
    pub(crate) question: Question,
}

/// What is asked about. Its id and step name what the hook asks for in turn: the same in every try, and in no other call.
#[derive(Clone)]
pub(crate) struct About {
    /// Of a delivery.
    pub(crate) endpoint: Option<String>,
    /// The event's, or the delivery's.
    pub(crate) id: String,
    /// Which of the questions about a delivery.
    pub(crate) step: Option<String>,
}

impl About {
    pub(crate) fn event(event: &Event) -> Self {
        Self { endpoint: None, id: event.id.clone(), step: None }
    }
}

pub(crate) enum Question {
    /// `data` is what the hook before left; nothing when none replaced the event's own.
    Handle {
        data: Option<Arc<str>>,
    },
    Shape {
        data: Arc<str>,
        request: Request,
    },
    Judge {
        request: Request,
        response: Response,
        usual: Judgement,
    },
}

#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Verdict(Verdict),
    Request(Request),
    Judgement(Judgement),
}

impl Question {
    /// The host's checks of what a guest answered.
    pub(crate) fn check(&self, answer: Answer, limit: usize) -> Result<Answer, String> {
        match (self, answer) {
            (Self::Handle { .. }, Answer::Verdict(verdict)) => verdict.checked(limit).map(Answer::Verdict),
            (Self::Shape { request, .. }, Answer::Request(shaped)) => {
                shaped.checked(request, limit).map(Answer::Request)
            }
            (Self::Judge { .. }, Answer::Judgement(judgement)) => Ok(Answer::Judgement(judgement.checked())),
            _ => Err("an answer to another question".to_owned()),
        }
    }
}
