"""The look of the report, for wide and narrow screens."""

STYLE = """
*{box-sizing:border-box}
body{margin:0;background:#f4f5f7;color:#1c2430;font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1180px;margin:0 auto;padding:16px}
h1{font-size:24px;margin:8px 0 16px;overflow-wrap:anywhere}
h2{font-size:20px;margin:32px 0 8px;overflow-wrap:anywhere}
h2.set{border-top:3px solid #1f6fb4;padding-top:12px}
h3{font-size:16px;margin:24px 0 6px}
p{margin:10px 0;max-width:80ch}
.note{color:#5a6472}
.tiles{display:flex;flex-wrap:wrap;gap:10px}
.tiles div{background:#fff;border:1px solid #dde1e6;border-radius:8px;padding:8px 14px;min-width:96px}
.tiles b{display:block;font-size:22px}
.tiles span{color:#5a6472;font-size:13px}
.scroll{overflow-x:auto;background:#fff;border:1px solid #dde1e6;border-radius:8px;max-height:560px;overflow-y:auto}
table{border-collapse:collapse;font-size:14px;min-width:100%}
th,td{padding:4px 10px;text-align:right;border-bottom:1px solid #eceff2;white-space:nowrap}
th{background:#eef1f4;font-weight:600;position:sticky;top:0}
th.t,td.t{text-align:left;max-width:340px;white-space:normal;overflow-wrap:anywhere;min-width:110px}
td.line{white-space:nowrap;max-width:none}
.scroll.matrix{max-height:none}
.matrix td,.matrix th{padding:3px 6px;text-align:center;min-width:30px}
.matrix tbody th{text-align:left;min-width:70px;max-width:160px;white-space:normal;overflow-wrap:break-word}
.matrix thead th{vertical-align:bottom;text-align:left;font-size:12px;position:static}
.matrix thead span{writing-mode:vertical-rl;transform:rotate(180deg);max-height:150px;overflow:hidden;
text-overflow:ellipsis}
.bar{display:inline-block;height:10px;background:#d95f02;border-radius:2px;vertical-align:middle}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:14px}
figure{margin:0;background:#fff;border:1px solid #dde1e6;border-radius:8px;padding:10px}
svg{width:100%;height:auto;display:block}
svg text{font-size:12.5px;fill:#3c4654}
@media (max-width:600px){svg text{font-size:16px}th,td{padding:4px 7px}}
svg .grid{stroke:#e3e7eb}
svg polyline{fill:none;stroke-width:2;stroke-linejoin:round}
figcaption{font-size:13px;display:flex;flex-wrap:wrap;gap:2px 14px;overflow-wrap:anywhere}
figcaption i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:5px;vertical-align:-1px}
.pair{background:#fff;border:1px solid #dde1e6;border-radius:8px;padding:10px;margin:0 0 14px}
.pair p{margin:0 0 6px;overflow-wrap:anywhere;max-width:none}
.sides{display:flex;flex-wrap:wrap;gap:10px}
.sides div{flex:1 1 280px;min-width:0}
.sides span{font-size:13px;color:#5a6472}
img{max-width:100%;height:auto;display:block;border-radius:4px}
pre{background:#fff;border:1px solid #dde1e6;border-radius:8px;padding:12px;overflow-x:auto;font-size:13px}
summary{cursor:pointer}
footer{color:#5a6472;font-size:13px;margin:28px 0 8px}
"""
