//! Which kinds an API server has, by its own word.

use std::time::Duration;

use serde::Deserialize;

use super::client::{Api, ApiError, built};
use super::resource::Resource;

/// Whether the server's own description of its API holds the kind.
pub(super) async fn knows(
    api: &Api,
    resource: &Resource,
    limit: Duration,
) -> Result<bool, ApiError> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
    }
    #[derive(Deserialize)]
    struct Resources {
        resources: Vec<Named>,
    }
    #[derive(Deserialize)]
    struct Groups {
        groups: Vec<Named>,
    }
    let get = |path: String| built(hyper::Request::get(path).body(Vec::new()));
    let (group, _) = resource.group_version.split_once('/').unwrap_or_default();
    let version = get(format!("/apis/{}", resource.group_version))?;
    match api.json::<Resources>(version, limit).await {
        Ok(found) => Ok(found.resources.iter().any(|r| r.name == resource.plural)),
        Err(error) if error.code() == Some(404) => {
            let groups: Groups = api.json(get("/apis".to_owned())?, limit).await?;
            Ok(groups.groups.iter().any(|g| g.name == group))
        }
        Err(error) => Err(error),
    }
}
