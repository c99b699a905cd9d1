#!/usr/bin/env python3
"""A custom authorizer's function, in place of a cloud function.

It gets one JSON document on its standard input and answers one on its standard
output: who the device is, what it may do, and for how long. This one knows a
single password. Yours will look at a token, a database or a directory; it has
five seconds for it, and whatever it does wrong lets nobody in.
"""

import base64
import json
import re
import sys

# Say in the policies which region and account the server is configured with.
SCOPE = "arn:aws:iot:us-east-1:000000000000:"
PASSWORD = b"correct horse battery staple"


def authenticate(event):
    mqtt = event["protocolData"].get("mqtt", {})
    # The user name is as the device sent it, with the query string at its end.
    user = mqtt.get("username", "").partition("?")[0]
    password = base64.b64decode(mqtt.get("password", ""))
    if password != PASSWORD or not re.fullmatch("[a-zA-Z0-9]{1,128}", user):
        return {"isAuthenticated": False}
    return {
        "isAuthenticated": True,
        "principalId": user,
        "disconnectAfterInSeconds": 86400,
        "refreshAfterInSeconds": 3600,
        "policyDocuments": [
            {
                "Version": "2012-10-17",
                "Statement": [
                    {"Effect": "Allow", "Action": "iot:Connect", "Resource": SCOPE + "client/" + user},
                    {"Effect": "Allow", "Action": "iot:Publish", "Resource": SCOPE + "topic/devices/" + user + "/*"},
                    {"Effect": "Allow", "Action": "iot:Subscribe", "Resource": SCOPE + "topicfilter/commands/" + user},
                    {"Effect": "Allow", "Action": "iot:Receive", "Resource": SCOPE + "topic/commands/" + user},
                ],
            }
        ],
    }


if __name__ == "__main__":
    json.dump(authenticate(json.load(sys.stdin)), sys.stdout)
