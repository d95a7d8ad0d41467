# Spark's master and worker. From here to the mark, this file and airflow.Dockerfile are the same, so that driver and
# executors have one Python, one Java and the same packages; Docker builds these layers once.

FROM python:3.11.14-slim-bookworm
# one link for every architecture: Debian's directory name carries it
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s "$(dirname "$(dirname "$(readlink -f "$(command -v java)")")")" /opt/java
ENV JAVA_HOME=/opt/java \
    SPARK_HOME=/opt/spark \
    PYSPARK_PYTHON=/opt/spark-venv/bin/python \
    PYSPARK_DRIVER_PYTHON=/opt/spark-venv/bin/python \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY deploy/compose/image/venv.sh deploy/compose/image/archive.sh requirements-boot.txt /opt/build/
COPY requirements-spark.txt /opt/build/
# compiled now: the user of the container can not write beside the packages
RUN UV_NO_CACHE=1 UV_COMPILE_BYTECODE=1 PIP_NO_CACHE_DIR=1 \
        sh /opt/build/venv.sh /opt/spark-venv /opt/build/requirements-boot.txt /opt/build/requirements-spark.txt \
    && ln -s /opt/spark-venv/lib/python3.11/site-packages/pyspark /opt/spark
COPY local/spark_warm_up.py /opt/build/
RUN sh /opt/build/archive.sh /opt/spark-classes.jsa /opt/build/spark_warm_up.py
# for maintenance: the driver takes them from its image, the executors from theirs
COPY deploy/compose/image/jars.sh /opt/build/
RUN sh /opt/build/jars.sh /opt/iceberg \
        org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0 \
        org.apache.iceberg:iceberg-aws-bundle:1.12.0
# ---- the same up to here ----

ARG OFFLOAD_UID=50000
RUN useradd --non-unique --uid "$OFFLOAD_UID" --gid 0 --create-home --home-dir /home/offload offload \
    && install --directory --owner="$OFFLOAD_UID" --group=0 --mode=0770 /var/lib/spark
WORKDIR /var/lib/spark
USER ${OFFLOAD_UID}:0
