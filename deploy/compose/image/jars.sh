#!/bin/sh
# jars.sh DIRECTORY PACKAGE…: the jars of these Maven packages and of all they need, by Spark's own `--packages`, as
# `make setup` fetches them (local/iceberg.py). Needs SPARK_HOME, JAVA_HOME and PYSPARK_PYTHON.
set -eu
target=$1
shift
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
: >"$work/nothing.py"
packages=$(IFS=,; echo "$*")
SPARK_LOCAL_IP=127.0.0.1
export SPARK_LOCAL_IP
"$SPARK_HOME/bin/spark-submit" --master 'local[1]' --conf "spark.jars.ivy=$work" --packages "$packages" "$work/nothing.py"
# beside Spark's own jars, not among them: an offload needs none of these, and the class data archive knows only those
mkdir -p "$target"
cp "$work"/jars/*.jar "$target"
# whoever runs the container reads them
chmod 0644 "$target"/*.jar
