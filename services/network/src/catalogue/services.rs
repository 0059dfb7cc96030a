//! Network services and what each provider of them is able to do.

/// A capability: name and value.
pub type Capability = (&'static str, &'static str);

/// A provider and the services that it gives.
#[derive(Clone, Copy, Debug)]
pub struct Provider {
    /// Name.
    pub name: &'static str,
    /// Services with their capabilities.
    pub services: &'static [(&'static str, &'static [Capability])],
}

impl Provider {
    /// The providers that work.
    pub const ALL: &'static [Provider] = &[Provider { name: super::VIRTUAL_ROUTER, services: ROUTER }];

    /// The provider of this name, in any case.
    pub fn find(name: &str) -> Option<&'static Provider> {
        Self::ALL.iter().find(|p| p.name.eq_ignore_ascii_case(name))
    }

    /// Names of its services, comma-separated.
    pub fn service_names(&self) -> String {
        let names: Vec<&str> = self.services.iter().map(|(name, _)| *name).collect();
        names.join(",")
    }
}

const STICKINESS: &str = concat!(
    r#"[{"methodname":"LbCookie","paramlist":["#,
    r#"{"paramname":"cookie-name","required":false,"isflag":false,"description":" "},"#,
    r#"{"paramname":"mode","required":false,"isflag":false,"description":" "},"#,
    r#"{"paramname":"nocache","required":false,"isflag":true,"description":" "},"#,
    r#"{"paramname":"indirect","required":false,"isflag":true,"description":" "},"#,
    r#"{"paramname":"postonly","required":false,"isflag":true,"description":" "},"#,
    r#"{"paramname":"domain","required":false,"isflag":false,"description":" "}],"#,
    r#""description":"This is loadbalancer cookie based stickiness method."},"#,
    r#"{"methodname":"AppCookie","paramlist":["#,
    r#"{"paramname":"cookie-name","required":false,"isflag":false,"description":" "},"#,
    r#"{"paramname":"length","required":false,"isflag":false,"description":" "},"#,
    r#"{"paramname":"holdtime","required":false,"isflag":false,"description":" "},"#,
    r#"{"paramname":"request-learn","required":false,"isflag":true,"description":" "},"#,
    r#"{"paramname":"prefix","required":false,"isflag":true,"description":" "},"#,
    r#"{"paramname":"mode","required":false,"isflag":false,"description":" "}],"#,
    r#""description":"This is App session based sticky method. Define session stickiness on an existing application cookie. "#,
    r#"It can be used only for a specific http traffic"},"#,
    r#"{"methodname":"SourceBased","paramlist":["#,
    r#"{"paramname":"tablesize","required":false,"isflag":false,"description":" "},"#,
    r#"{"paramname":"expire","required":false,"isflag":false,"description":" "}],"#,
    r#""description":"This is source based Stickiness method, it can be used for any type of protocol."}]"#,
);

const ROUTER: &[(&str, &[Capability])] = &[
    ("Dhcp", &[("DhcpAccrossMultipleSubnets", "true")]),
    ("Dns", &[("AllowDnsSuffixModification", "true")]),
    (
        "Firewall",
        &[
            ("TrafficStatistics", "per public ip"),
            ("SupportedTrafficDirection", "ingress, egress"),
            ("SupportedProtocols", "tcp,udp,icmp"),
            ("SupportedEgressProtocols", "tcp,udp,icmp, all"),
            ("MultipleIps", "true"),
        ],
    ),
    ("Gateway", &[]),
    (
        "Lb",
        &[
            ("SupportedLbAlgorithms", "roundrobin,leastconn,source"),
            ("AutoScaleCounters", r#"[{"methodname":"cpu","paramlist":[]},{"methodname":"memory","paramlist":[]}]"#),
            ("SupportedProtocols", "tcp, udp, tcp-proxy"),
            ("SupportedLBIsolation", "dedicated"),
            ("SupportedStickinessMethods", STICKINESS),
            ("LbSchemes", "Public"),
        ],
    ),
    ("PortForwarding", &[("SupportedProtocols", "tcp,udp")]),
    ("SourceNat", &[("SupportedSourceNatTypes", "peraccount"), ("RedundantRouter", "true")]),
    ("StaticNat", &[]),
    ("UserData", &[]),
    ("Vpn", &[("SupportedVpnTypes", "pptp,l2tp,ipsec"), ("VpnTypes", "removeaccessvpn")]),
];

/// Whether a provider that works gives the service.
pub fn supported(service: &str) -> bool {
    Provider::ALL.iter().any(|p| p.services.iter().any(|(name, _)| *name == service))
}

/// What `provider` is able to do for `service`.
pub fn capabilities_of(provider: &str, service: &str) -> &'static [Capability] {
    Provider::find(provider)
        .and_then(|p| p.services.iter().find(|(name, _)| *name == service))
        .map_or(&[], |(_, capabilities)| capabilities)
}
