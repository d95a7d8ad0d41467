#!/bin/sh
# Runs once before the other Airflow services, and again at every `up`; repeats without harm.
set -eu

# the simple auth manager locks its file for writing: it gets a copy of the secret
umask 077
cp /run/secrets/airflow_passwords.json /opt/airflow/auth/passwords.json.new
mv /opt/airflow/auth/passwords.json.new /opt/airflow/auth/passwords.json

airflow db migrate
airflow pools set offload_spark "${OFFLOAD_SPARK_SLOTS}" "Offload jobs at the same time"
airflow pools set offload_maintenance 1 "Maintenance jobs at the same time"
airflow pools set offload_verify 1 "Verifications at the same time"
bin/offload ledger upgrade
