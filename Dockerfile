# A server of an exported model. Not yet built in a container: a test runs its commands without one.
#
#     docker build --tag lora-distill .
#     docker run --read-only --cap-drop ALL --stop-timeout 61 --publish 127.0.0.1:8000:8000 \
#         --volume "$PWD/outputs/lora_distillation/mine/exported/student-onnx-int8:/model:ro" lora-distill
#
# A server that is stopped finishes what it accepted: that may take twice its --timeout of 30 seconds.
FROM python:3.11-slim AS build
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
RUN python -m venv /opt/venv
RUN /opt/venv/bin/python -m pip install --no-cache-dir --constraint constraints.txt ".[serve]"

FROM python:3.11-slim
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=15s CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["lora-distill", "serve", "/model", "--host", "0.0.0.0", "--port", "8000"]
