//! Notes that administrators make on hosts.

use crate::fact;
use crate::store::annotations::{self as rows, AnnotationRow, Filter, HOST};
use crate::store::hosts;
use crate::world::World;
use ::store::{Tx, now_micros};
use contract::ApiError;
use contract::api::Caller;
use contract_infra::{
    AddAnnotationRequest, Annotation, ListAnnotationsRequest, ListAnnotationsResponse, RemoveAnnotationRequest,
};
use rpc::Cx;

/// Makes a note on a host.
///
/// # Errors
/// 431 without a text or an entity, and for entities other than living hosts.
pub async fn add(world: &World, cx: &Cx, r: AddAnnotationRequest) -> Result<Annotation, ApiError> {
    let text = given(r.annotation).ok_or_else(|| ApiError::param("An annotation needs a text"))?;
    check_type(given(r.entity_type).ok_or_else(|| ApiError::param("An annotation needs the type of its entity"))?)?;
    let host =
        given(r.entity_id).ok_or_else(|| ApiError::param("I have to have an entity to set an annotation on!"))?;
    let id = world.node.db.next_id("annotations").await?;
    jobs::mutate!(world.node.db, cx.caller, "add-annotation", |tx| {
        let living = hosts::by_uuid(&mut *tx, &host).await?.filter(|h| h.removed.is_none());
        living.ok_or_else(|| ApiError::param(format!("Unable to find the host {host}")))?;
        let note = make(tx, &cx.caller, id, &host, &text).await?;
        Ok(message(note))
    })
    .await
}

/// Writes a note on a host, as part of `tx`. `id` is a number of its own.
///
/// # Errors
/// Those of the database.
pub async fn make(tx: &mut Tx, caller: &Caller, id: i64, host: &str, text: &str) -> Result<AnnotationRow, ApiError> {
    let note = AnnotationRow {
        uuid: model::new_uuid(),
        entity_type: HOST.to_owned(),
        entity: host.to_owned(),
        text: text.to_owned(),
        user: caller.user_uuid.clone(),
        created: now_micros(),
        removed: None,
    };
    rows::add_to_host(tx, id, &note, &caller.user_name).await?;
    let what = format!("creating an annotation on an entity: host {host}");
    fact::completed(tx, caller, "ANNOTATION.CREATE", &what, ("Annotation", &note.uuid)).await?;
    Ok(note)
}

/// Removes a note.
///
/// # Errors
/// 431 when there is none.
pub async fn remove(world: &World, cx: &Cx, r: RemoveAnnotationRequest) -> Result<Annotation, ApiError> {
    let uuid = given(r.id).unwrap_or_default();
    let gone = || ApiError::param(format!("Unable to find the annotation {uuid}"));
    jobs::mutate!(world.node.db, cx.caller, "remove-annotation", |tx| {
        let note = rows::find(&mut *tx, &uuid).await?.ok_or_else(gone)?;
        if !rows::remove_from_host(tx, &note).await? {
            return Err(gone());
        }
        let what = format!("removing an annotation on an entity: host {}", note.entity);
        fact::completed(tx, &cx.caller, "ANNOTATION.REMOVE", &what, ("Annotation", &note.uuid)).await?;
        let note = rows::find(&mut *tx, &uuid).await?.ok_or_else(gone)?;
        Ok(message(note))
    })
    .await
}

/// Lists notes.
///
/// # Errors
/// 431 for a type of entity that has none, and for an entity without its type.
pub async fn list(world: &World, r: ListAnnotationsRequest) -> Result<ListAnnotationsResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let kind = given(r.entity_type);
    let entity = given(r.entity_id);
    if entity.is_some() && kind.is_none() {
        return Err(ApiError::param("An entity is named by its id and its type"));
    }
    if let Some(kind) = kind {
        check_type(kind)?;
    }
    let filter = Filter { uuid: given(r.id), entity, keyword: given(r.keyword) };
    let (found, count) = rows::list(&world.node.db, &filter, page).await?;
    Ok(ListAnnotationsResponse { count: Some(count), annotation: found.into_iter().map(message).collect() })
}

fn given(text: Option<String>) -> Option<String> {
    text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}

fn check_type(kind: String) -> Result<(), ApiError> {
    if kind.eq_ignore_ascii_case(HOST) {
        Ok(())
    } else {
        Err(ApiError::param(format!("Annotations are made on entities of type HOST, not {kind}")))
    }
}

fn message(note: AnnotationRow) -> Annotation {
    Annotation {
        id: Some(note.uuid),
        entity_type: Some(note.entity_type),
        entity_id: Some(note.entity),
        annotation: Some(note.text),
        user_id: Some(note.user).filter(|u| !u.is_empty()),
        created: Some(note.created),
        removed: note.removed,
        ..Annotation::default()
    }
}
