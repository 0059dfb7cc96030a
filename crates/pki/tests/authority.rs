//! The authority over its database.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use coord::Coord;
use pki::{CertificateRequest, Identity, Pki, San, Subject, Wanted, serial_of};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use std::time::Duration;
use store::{Db, DbConfig, Sql};
use testkit::wait_until;
use tokio_util::sync::CancellationToken;
use vault::Vault;
use x509_parser::prelude::{FromDer, X509Certificate};

async fn database(db: &testkit::TestDb) -> Db {
    let db = Db::connect(&DbConfig::new(db.url())).await.unwrap();
    db.migrate(pki::MIGRATIONS).await.unwrap();
    db
}

fn leaf(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

testkit::databases! {
    // covers: HOST-134
    async fn replicas_that_start_at_once_make_one_root(db: testkit::TestDb) {
        let db = database(&db).await;
        let vault = Vault::ephemeral();
        let coord = Coord::local();
        let (a, b, c) = tokio::join!(
            Pki::open(&db, &vault, &coord),
            Pki::open(&db, &vault, &coord),
            Pki::open(&db, &vault, &coord)
        );
        let (a, b, c) = (a.unwrap(), b.unwrap(), c.unwrap());
        assert_eq!(a.fingerprint(), b.fingerprint());
        assert_eq!(a.fingerprint(), c.fingerprint());
        // The key lies sealed, and another master key doesn't open it.
        let row = db.one(Sql::new("SELECT key_sealed FROM ca_certificates")).await.unwrap();
        let sealed: String = row.at(0).unwrap();
        assert!(!sealed.contains("PRIVATE"));
        assert!(Pki::open(&db, &Vault::ephemeral(), &coord).await.is_err());
        // What one issues, all trust: it is the same root's signature.
        let request = CertificateRequest::new().unwrap();
        let issued = b.issue(&request.csr_pem, Subject::Host("u".into()), &[]).await.unwrap();
        let der = leaf(&issued.chain_pem);
        let (_, certificate) = X509Certificate::from_der(&der).unwrap();
        let (_, root) = X509Certificate::from_der(c.ca_der()).unwrap();
        certificate.verify_signature(Some(root.public_key())).unwrap();
        assert_eq!(Subject::of(&der), Some(Subject::Host("u".into())));
        assert_eq!(serial_of(&der).unwrap(), issued.serial);
    }

    async fn a_revocation_reaches_all_replicas(db: testkit::TestDb) {
        let db = database(&db).await;
        let vault = Vault::ephemeral();
        let coord = Coord::local();
        let (a, b) = (Pki::open(&db, &vault, &coord).await.unwrap(), Pki::open(&db, &vault, &coord).await.unwrap());
        let stop = CancellationToken::new();
        tokio::spawn(b.clone().follow(stop.clone()));
        let request = CertificateRequest::new().unwrap();
        let issued = a.issue(&request.csr_pem, Subject::Host("u".into()), &[]).await.unwrap();
        assert!(a.revoke_certificate(&issued.serial, "test").await.unwrap());
        assert!(!a.revoke_certificate(&issued.serial, "test").await.unwrap());
        assert!(a.revoked().borrow().has(&issued.serial));
        // The notice may come before b follows: it is sent again by the next revocation.
        wait_until(
            || async {
                coord.publish("pki", "revoked");
                b.revoked().borrow().has(&issued.serial)
            },
            Duration::from_secs(20),
        )
        .await;
        let again = Pki::open(&db, &vault, &coord).await.unwrap();
        assert!(again.revoked().borrow().has(&issued.serial));
        stop.cancel();
    }
}

#[tokio::test]
async fn requests_decide_nothing_but_the_key() {
    // Held: its folder goes with it.
    let folder = testkit::TestDb::sqlite();
    let db = database(&folder).await;
    let pki = Pki::open(&db, &Vault::ephemeral(), &Coord::local()).await.unwrap();
    // A request that asks to be a CA of another name.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["evil.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let issued = pki.issue(&csr, Subject::Host("u".into()), &[]).await.unwrap();
    let der = leaf(&issued.chain_pem);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert!(!certificate.is_ca());
    let names = certificate.subject_alternative_name().unwrap().unwrap();
    assert_eq!(names.value.general_names.len(), 1);
    let usage = certificate.extended_key_usage().unwrap().unwrap();
    assert!(usage.value.client_auth && !usage.value.server_auth);
    // Requests that aren't signed by their key are refused.
    let broken = csr.replacen('A', "B", 3);
    assert_eq!(pki.issue(&broken, Subject::Host("u".into()), &[]).await.unwrap_err().code, 431);
    let service = pki.service_identity("network", &[San::parse("10.0.0.1"), San::parse("n.example")]).await.unwrap();
    assert_eq!(service.subject(), Some(Subject::Service("network".into())));
    assert!(Duration::from_secs(3600) < service.renew_in() && !service.is_expired());
    assert!(Identity::from_pem("", "").is_err());
}

#[tokio::test]
async fn certificates_for_others_open_no_door_of_ours() {
    let folder = testkit::TestDb::sqlite();
    let db = database(&folder).await;
    let pki = Pki::open(&db, &Vault::ephemeral(), &Coord::local()).await.unwrap();
    let day = Duration::from_secs(24 * 3600);
    // A request that asks to be a service of ours, and a CA.
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["web.example".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let uri = rcgen::string::Ia5String::try_from("arcus://service/orchestrator").unwrap();
    params.subject_alt_names.push(rcgen::SanType::URI(uri));
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let by_request = Wanted { csr_pem: Some(csr), names: Vec::new(), validity: 10 * day };
    let named = pki.sign_named(&by_request).unwrap();
    assert!(named.key_pem.is_none());
    let der = leaf(&named.certificate_pem);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    let (_, root) = X509Certificate::from_der(pki.ca_der()).unwrap();
    certificate.verify_signature(Some(root.public_key())).unwrap();
    assert_eq!((Subject::of(&der), certificate.is_ca()), (None, false));
    assert_eq!(
        certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(),
        1,
        "the URI is left out"
    );
    let days = (certificate.validity().not_after.timestamp() - certificate.validity().not_before.timestamp()) / 86_400;
    assert_eq!(days, 10);
    // With a key made along, and no longer than the root.
    let names = vec![San::parse("10.0.0.1"), San::parse("db.example")];
    let made = pki.sign_named(&Wanted { csr_pem: None, names: names.clone(), validity: 36_500 * day }).unwrap();
    assert_eq!(made.common_name, "10.0.0.1");
    let key = made.key_pem.as_ref().unwrap();
    Identity::from_pem(&made.certificate_pem, key.expose()).unwrap();
    let der = leaf(&made.certificate_pem);
    let (_, certificate) = X509Certificate::from_der(&der).unwrap();
    assert_eq!(certificate.validity().not_after, root.validity().not_after);
    assert_eq!(certificate.subject_alternative_name().unwrap().unwrap().value.general_names.len(), 2);
    // Nothing to name, or a broken request: refused.
    let nothing = pki.sign_named(&Wanted { csr_pem: None, names: Vec::new(), validity: day }).unwrap_err();
    assert!(nothing.code == 431 && nothing.text.contains("name nothing"), "{nothing}");
    assert_eq!(pki.sign_named(&Wanted { csr_pem: Some("x".into()), names, validity: day }).unwrap_err().code, 431);
    // Once recorded, it can be revoked like any other.
    store::tx!(db, "record", |tx| pki.record_named(tx, &made).await).await.unwrap();
    assert!(pki.revoke_certificate(&made.serial, "test").await.unwrap());
    assert!(pki.revoked().borrow().has(&made.serial) && !pki.revoked().borrow().has(&named.serial));
}
