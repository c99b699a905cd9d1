#!/bin/sh
# A child in the background and one that is waited for.
sleep 300 &
sleep 300
