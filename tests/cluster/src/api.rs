//! The query API of a cluster, with the administrator's keys.

use arcus::api_client::ApiClient;
use std::ops::Deref;

/// The query API with the administrator's keys; calls go through [`ApiClient`].
pub struct Api {
    /// "http://127.0.0.1:8080/client/api".
    pub endpoint: String,
    /// API key.
    pub key: String,
    /// Secret key.
    pub secret: String,
    client: ApiClient,
}

impl Api {
    /// A client of `endpoint`.
    pub fn new(endpoint: impl Into<String>, key: impl Into<String>, secret: impl Into<String>) -> Api {
        let (endpoint, key, secret) = (endpoint.into(), key.into(), secret.into());
        let client = ApiClient::new(&endpoint, &key, &secret);
        Api { endpoint, key, secret, client }
    }

    /// The same keys at another endpoint: one gateway, without the balancer.
    pub fn at(&self, endpoint: impl Into<String>) -> Api {
        Api::new(endpoint, &self.key, &self.secret)
    }
}

impl Deref for Api {
    type Target = ApiClient;

    fn deref(&self) -> &ApiClient {
        &self.client
    }
}
