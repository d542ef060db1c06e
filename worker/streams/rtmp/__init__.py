"""
The server's side of RTMP, as far as publishers need it: what somebody sends to us becomes tags of FLV for ffmpeg.

``amf`` and ``chunks`` parse, ``session`` is the conversation of one connection without a socket, ``connection`` puts it
on one, ``listener`` accepts connections, and ``feed`` hands the pictures to ffmpeg. Everything that a connection can
make this process hold or do is bounded: bytes, messages, values, time and connections. Codecs are not looked at here.
"""
