#!/bin/sh
# archive.sh FILE JOB: the class data archive that halves the start of Spark, made by running JOB once.
# Needs SPARK_HOME, JAVA_HOME and PYSPARK_PYTHON. It fits only this Java, these jars, and a class path on which no
# directory holds a file: so SPARK_CONF_DIR is not set, here and later.
set -eu
target=$1
job=$2
SPARK_LOCAL_IP=127.0.0.1
SPARK_SUBMIT_OPTS="-XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Xshare:auto"
export SPARK_LOCAL_IP SPARK_SUBMIT_OPTS
"$SPARK_HOME/bin/spark-submit" --master 'local[2]' --conf spark.ui.enabled=false \
    --driver-java-options "-XX:ArchiveClassesAtExit=$target -Xlog:disable -Xlog:all=error:stderr" "$job"
if [ ! -s "$target" ]; then
    echo "no archive in $target" >&2
    exit 1
fi
# whoever runs the container reads it
chmod 0644 "$target"
