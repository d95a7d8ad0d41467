# SeaweedFS with a directory for its data that the user of the secrets may write to: the image's own /data belongs to
# its user 1000, and its entrypoint would have to begin as root to change that.
FROM chrislusf/seaweedfs:4.48
RUN mkdir -m 0770 /var/lib/seaweedfs
ARG OFFLOAD_UID=50000
USER ${OFFLOAD_UID}:0
