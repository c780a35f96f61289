# A board for trying things out: an SSH server, Python and ONNX Runtime.
FROM python:3.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends openssh-server \
    && rm -rf /var/lib/apt/lists/* && mkdir -p /run/sshd \
    && pip install --no-cache-dir 'onnxruntime>=1.23'
CMD ["/usr/sbin/sshd", "-D", "-e", "-o", "AuthorizedKeysFile=/run/secrets/board_key.pub", \
     "-o", "StrictModes=no", "-o", "PasswordAuthentication=no"]
