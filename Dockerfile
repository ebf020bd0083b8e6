# fedbridge with both of its environments, for machines on which the real TFF does not run.
#
#     docker build --platform linux/amd64 -t fedbridge .
#     docker run --rm --platform linux/amd64 -v "$PWD:/scripts" fedbridge check my_script.py --report report
FROM --platform=linux/amd64 python:3.11-slim

ENV FEDBRIDGE_REFERENCE=/opt/reference
RUN pip install --no-cache-dir uv
WORKDIR /opt/fedbridge
COPY pyproject.toml README.md LICENSE ./
COPY fedbridge fedbridge
RUN pip install --no-cache-dir ".[plots]" \
    && UV_NO_CACHE=1 fedbridge reference create \
    && fedbridge reference doctor

WORKDIR /scripts
ENTRYPOINT ["fedbridge"]
