//! The incumbent's figures, to stand beside ours: CloudStack 4.23 with its simulator, measured with the same kind of load on the
//! same kind of machine (2 cores, 24 GiB; MariaDB 10.11 with durable commits, load generator on the same machine; median of
//! three). It waited for jobs by asking every 200 ms.

/// What is known, by what was measured and under which load.
const KNOWN: &[(&str, &str, &str)] = &[
    ("VMs, page of 20", "1 client", "100 VMs: 9/s, 108 ms; 1,000: 7.7/s, 126 ms"),
    ("VMs, page of 20", "8 clients", "100 VMs: 15/s, 507 ms; 1,000: 15/s, 498 ms"),
    ("VMs, page of 20", "32 clients", "100 VMs: 13/s, 1,884 / 4,000 ms; 1,000: 12/s, 2,230 ms"),
    ("zones", "1 client", "1,000 VMs: 55/s, 15 ms"),
    ("zones", "8 clients", "1,000 VMs: 118/s, 64 ms"),
    ("zones", "32 clients", "1,000 VMs: 105/s, 282 ms"),
    ("deploy", "1 client", "2,200-2,500 ms each"),
    ("deploy", "16 clients", "200 VMs, one network: 1.5-2.0/s, 7,000-11,000 / 11,000-15,000 ms"),
    ("destroy and expunge", "1 client", "7,500-7,800 ms each"),
    ("destroy and expunge", "16 clients", "1.4-1.8/s"),
    ("SQL statements a deploy", "", "about 2,700"),
    ("addHost", "1 client", "4.0/s (237 a minute)"),
    ("addHost", "4 clients", "8.3-10.7/s (496-643 a minute)"),
    ("start on its data, to the first listZones", "", "31 s (30.6-40)"),
    ("memory, idle", "", "1,120 MiB, 248 threads"),
    ("kill -9 in 32 deploys, to the first listZones", "", "36 s"),
    (
        "kill -9 in 32 deploys, to the end of all jobs",
        "",
        "the 16 in flight failed, their VMs stay Stopped with addresses",
    ),
];

/// The incumbent's figure, or that there is none.
pub fn of(what: &str, load: &str) -> &'static str {
    KNOWN.iter().find(|(w, l, _)| *w == what && *l == load).map_or("not measured", |(_, _, figure)| *figure)
}
