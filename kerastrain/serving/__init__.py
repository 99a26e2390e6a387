"""Answers from published models: REST and gRPC in TensorFlow Serving's shape, in one process.

kerastrain serve --model=runs/digits          # what people use
await serve(settings)                         # kerastrain.serving.server

`models` watches folders and loads versions, `predictor` asks them, `grpc_server` and `rest`
speak to clients; `failures` are what all of them tell a client when something is wrong.
"""
