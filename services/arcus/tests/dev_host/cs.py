#!/usr/bin/env python3
"""What README.md's commands use of cs (https://github.com/exoscale/cs): signs, calls, waits for jobs, prints JSON. Tests of the
clients themselves are in tests/clients; here none need be installed."""
import base64, hashlib, hmac, json, os, sys, time, urllib.error, urllib.parse, urllib.request


def call(command, params):
    params = {**params, "command": command, "apiKey": os.environ["CLOUDSTACK_KEY"], "response": "json"}
    text = lambda value: urllib.parse.quote(value, safe="*")
    query = "&".join(f"{k}={text(params[k])}" for k in sorted(params, key=str.lower))
    digest = hmac.new(os.environ["CLOUDSTACK_SECRET"].encode(), query.lower().encode(), hashlib.sha1).digest()
    url = f"{os.environ['CLOUDSTACK_ENDPOINT']}?{query}&signature={text(base64.b64encode(digest).decode())}"
    try:
        with urllib.request.urlopen(url) as answer:
            return next(iter(json.load(answer).values()))
    except urllib.error.HTTPError as error:
        sys.exit(f"{command}: {error.read().decode()}")


answer = call(sys.argv[1], dict(word.split("=", 1) for word in sys.argv[2:]))
if "jobid" in answer:
    while (job := call("queryAsyncJobResult", {"jobid": answer["jobid"]}))["jobstatus"] == 0:
        time.sleep(0.2)
    if job["jobstatus"] != 1:
        sys.exit(f"{sys.argv[1]}: {job['jobresult']}")
    answer = job["jobresult"]
print(json.dumps(answer))
