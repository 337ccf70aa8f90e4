"""Makes tests/data/hub/layout.txt: what huggingface_hub leaves in its cache after downloading
the model of tests/app/test_pull.c from a server that speaks the hub's API.

    python tests/reference/hub_layout.py          (huggingface_hub 0.36.2)
"""
import hashlib, http.server, os, sys, tempfile, threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FILES = {  # name -> (bytes, kept by git-lfs); the same as in tests/app/test_pull.c
    "config.json": (b'{"model_type": "paligemma"}\n', False),
    "generation_config.json": (b"{}\n", False),
    "preprocessor_config.json": (b'{"size": {"height": 224}}\n', False),
    "tokenizer.model": (bytes((i * 31 + 7) & 255 for i in range(5000)), True),
    "model.safetensors": (bytes((i * i // 251 + i * 3) & 255 for i in range(1500000)), True),
}


def etag(data, lfs):
    return hashlib.sha256(data).hexdigest() if lfs else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        data, lfs = FILES[self.path.split("/")[-1]]
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Linked-Etag" if lfs else "ETag", '"%s"' % etag(data, lfs))
        if lfs:
            self.send_header("X-Linked-Size", str(len(data)))
        self.end_headers()
        return data

    def do_GET(self):
        self.wfile.write(self.do_HEAD())

    def log_message(self, *args):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.environ["HF_ENDPOINT"] = "http://127.0.0.1:%d" % server.server_port
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["HF_HUB_DISABLE_XET"] = "1"
    import huggingface_hub

    with tempfile.TemporaryDirectory() as cache:
        for revision in "main", "refs/pr/1":
            for name in FILES:
                huggingface_hub.hf_hub_download("org/tiny", name, revision=revision, cache_dir=cache)
        lines = []
        for folder, folders, files in os.walk(cache):
            for name in folders + files:
                path = os.path.join(folder, name)
                text = os.path.relpath(path, cache)
                if os.path.islink(path):
                    text += " -> " + os.readlink(path)
                elif os.path.isdir(path):
                    text += "/"
                else:
                    text += " %d" % os.path.getsize(path)
                    if "/refs/" in path:
                        text += " " + open(path).read()
                lines.append(text + "\n")
    with open("tests/data/hub/layout.txt", "w") as f:
        f.writelines(sorted(lines))
    print("huggingface_hub", huggingface_hub.__version__, len(lines), "lines")


sys.exit(main())
