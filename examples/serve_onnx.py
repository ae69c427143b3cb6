"""Serve a model with onnxruntime alone: ORT_DISABLE_TELEMETRY=1 python examples/serve_onnx.py model.onnx [PORT].

The request is a POST of 784 bytes for each image, row by row: curl --data-binary @images.bin http://127.0.0.1:8000
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

import numpy as np
import onnxruntime

MAX_BYTES = 1000 * 784


class Handler(BaseHTTPRequestHandler):
    """Answers with the label and probability of each image."""

    def do_POST(self):
        """Classify the images in the body of the request."""
        length = int(self.headers.get("Content-Length") or 0)
        if not 0 < length <= MAX_BYTES or length % 784:
            self.send_error(400, f"{length} bytes; expected 784 for each image, at most {MAX_BYTES}")
            return
        images = np.frombuffer(self.rfile.read(length), np.uint8).reshape(-1, 28, 28)
        (probabilities,) = session.run(["probabilities"], {"images": images})
        answers = [{"label": names[row.argmax()], "probability": float(row.max())} for row in probabilities]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(answers).encode())


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
    names = json.loads(session.get_modelmeta().custom_metadata_map["class_names"])
    server = HTTPServer(("127.0.0.1", int(sys.argv[2]) if sys.argv[2:] else 8000), Handler)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()
