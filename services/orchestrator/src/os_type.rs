//! Guest operating systems.

use crate::store::os_types::{self as rows, OsTypeFilter};
use crate::world::World;
use contract::ApiError;
use contract_infra::{
    ListOsCategoriesRequest, ListOsCategoriesResponse, ListOsTypesRequest, ListOsTypesResponse, OsCategory, OsType,
};
use rpc::Cx;

/// Lists operating systems.
pub async fn list(world: &World, cx: &Cx, r: ListOsTypesRequest) -> Result<ListOsTypesResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let filter = OsTypeFilter {
        id: cx.refs.one("id").map(|e| e.id),
        category: cx.refs.one("oscategoryid").map(|e| e.id),
        name: r.description.filter(|d| !d.is_empty()),
        keyword: r.keyword.filter(|k| !k.is_empty()),
    };
    let (found, count) = rows::list(&world.node.db, &filter, page).await?;
    let os_type = found
        .into_iter()
        .map(|t| OsType {
            id: Some(t.uuid),
            os_category_id: Some(t.category_uuid),
            description: Some(t.name),
            is_user_defined: Some(t.user_defined),
            ..OsType::default()
        })
        .collect();
    Ok(ListOsTypesResponse { count: Some(count), os_type })
}

/// Lists categories of operating systems.
pub async fn list_categories(
    world: &World,
    cx: &Cx,
    r: ListOsCategoriesRequest,
) -> Result<ListOsCategoriesResponse, ApiError> {
    let page = world.page(r.page, r.page_size)?;
    let id = cx.refs.one("id").map(|e| e.id);
    let name = r.name.as_deref().filter(|n| !n.is_empty());
    let keyword = r.keyword.as_deref().filter(|k| !k.is_empty());
    let (found, count) = rows::categories(&world.node.db, id, name, keyword, page).await?;
    let os_category = found
        .into_iter()
        .map(|(id, name)| OsCategory { id: Some(id), name: Some(name), ..OsCategory::default() })
        .collect();
    Ok(ListOsCategoriesResponse { count: Some(count), os_category })
}
