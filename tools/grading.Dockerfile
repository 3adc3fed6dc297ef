# The course as an image for docker or podman, where bubblewrap does not work (macOS, Windows):
#   docker build -t cifar-course-grading -f tools/grading.Dockerfile .
# tools/grade.py runs each submission in a container of its own, without network, and mounts what else it needs.
FROM python:3.12-slim
COPY pyproject.toml constraints.txt README.md LICENSE /course/
COPY cifar_helpers /course/cifar_helpers
COPY notebooks /course/notebooks
COPY results /course/results
RUN pip install --no-cache-dir -c /course/constraints.txt "/course[notebook]" psutil
