#!/bin/sh
echo "reads no token" >&2
exit 3
