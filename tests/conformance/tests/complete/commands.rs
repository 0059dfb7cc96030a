//! A command as a whole.

use conformance::declared::Declared;
use conformance::reference::Command;
use contract::api::{Execution, Form, RoleType};

use crate::Place;

/// Compares everything but parameters and answers.
pub fn compare(declared: &Declared, expected: &Command, at: &mut Place<'_>) {
    let info = declared.info;
    let kind = match info.execution {
        Execution::Sync => "sync",
        Execution::Async => "async",
        Execution::AsyncCreate => "async_create",
    };
    at.same("kind", kind, expected.kind.as_str());
    at.same("wrapper", info.response.as_ref(), expected.response_name.as_str());
    let form = match info.form {
        Form::Object => "object",
        Form::List => "list",
        Form::Success => "success",
        Form::Flat => "flat",
        Form::None => "none",
    };
    at.same("form", form, expected.form.as_str());
    if matches!(info.form, Form::Object | Form::List) {
        at.same("item", info.item.as_ref(), expected.item_key.as_deref().unwrap_or_default());
    }
    let answers_job = info.execution != Execution::Sync;
    let output = declared.method.output();
    at.same("output", output.full_name() == "arcus.api.v1.JobRef", answers_job);
    if info.form == Form::Success {
        at.same("result", info.result.as_ref(), "arcus.api.v1.Success");
    }
    at.same("roles", roles(&info.roles), names(&expected.default_roles));
    at.same("authorized", roles(&info.authorized), names(&expected.authorized));
    at.same("request_sensitive", info.sensitive_request, expected.request_sensitive);
    at.same("response_sensitive", info.sensitive_response, expected.response_sensitive);
    at.same("post_only", info.post_only, expected.http_methods == ["POST"]);
    at.same("authenticator", info.authenticator, expected.authenticator);
    at.same("since", info.since.as_ref(), expected.since.as_deref().unwrap_or_default());
    // Events of a job are its own; a synchronous command raises one in what it calls.
    let types = if answers_job { &expected.event_types } else { &expected.action_events };
    if types.iter().all(|t| *t != info.event) && !(types.is_empty() && info.event.is_empty()) {
        at.add("event", format!("declared {:?}, 4.11 has one of {types:?}", info.event));
    }
    if answers_job {
        // "None" is left out of answers.
        let object = expected.job_instance_type.as_deref().filter(|o| *o != "None").unwrap_or_default();
        at.same("object", info.object.as_ref(), object);
        at.same("job_class", info.job_class.as_ref(), expected.class.as_str());
        at.same("admin_job_class", info.admin_job_class.as_ref(), expected.admin_class.as_deref().unwrap_or_default());
    }
}

/// Role types by the names that the reference uses, sorted.
pub fn roles(types: &[RoleType]) -> Vec<&'static str> {
    let mut out: Vec<_> = types
        .iter()
        .map(|role| match role {
            RoleType::Admin => "Admin",
            RoleType::ResourceAdmin => "ResourceAdmin",
            RoleType::DomainAdmin => "DomainAdmin",
            RoleType::User => "User",
            RoleType::Unspecified => "?",
        })
        .collect();
    out.sort_unstable();
    out
}

/// Role types of the reference, sorted.
pub fn names(given: &[String]) -> Vec<&str> {
    let mut out: Vec<&str> = given.iter().map(String::as_str).collect();
    out.sort_unstable();
    out
}
