"""What runs on the device: it takes ONNX files and requests, and gives back measured times.

The values of `device_agent.wire.request` are all that the host needs; `device_agent.bundle`
makes the one file that is sent to the device. Nothing but the standard library is
imported until a job asks for a runtime.
"""
