// Draws the two charts with plotly, in the page's own colours. Data comes from this host's API alone.
"use strict";

const Charts = (() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
  const config = { displayModeBar: false, responsive: true, scrollZoom: false };

  function layout(extra) {
    const axis = { gridcolor: colour("line"), zeroline: false, linecolor: colour("line"), tickfont: { color: colour("muted") } };
    const base = {
      margin: { l: 58, r: 12, t: 6, b: 40 }, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: "system-ui, sans-serif", size: 12, color: colour("ink") }, showlegend: false, hovermode: "x unified",
      hoverlabel: { bgcolor: colour("card"), bordercolor: colour("line"), font: { color: colour("ink") } }, dragmode: "pan",
      xaxis: { ...axis, showgrid: false }, yaxis: axis,
    };
    for (const [key, value] of Object.entries(extra)) base[key] = key.includes("axis") ? { ...axis, ...base[key], ...value } : value;
    return base;
  }

  async function get(url) {
    const answer = await fetch(url, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new Error(`${url}: ${answer.status}`);
    return answer.json();
  }

  function empty(element, words) {
    if (element.classList.contains("js-plotly-plot")) Plotly.purge(element);
    element.textContent = words;
  }

  async function equity(element, days, until) {
    // Whole minutes: the same question within a minute has the same answer ready.
    const from = days ? new Date(Math.floor(until / 60000 - days * 1440) * 60000).toISOString() : null;
    const data = await get(`/api/equity?points=400${from ? `&from=${encodeURIComponent(from)}` : ""}`);
    if (!data.marks.length) return empty(element, "No equity has been measured in this range.");
    const at = data.marks.map((mark) => mark.at);
    const value = data.marks.map((mark) => Number(mark.equity_quote));
    let peak = -Infinity;
    const drawdown = value.map((v) => { peak = Math.max(peak, v); return (v / peak - 1) * 100; });
    const opens = data.day_opens.map((open) => ({ at: open.at, limit: Number(open.breaker_quote) }));
    const lineAt = [], line = [];
    opens.forEach((open, index) => {
      lineAt.push(open.at, index + 1 < opens.length ? opens[index + 1].at : at[at.length - 1], null);
      line.push(open.limit, open.limit, null);
    });
    const traces = [
      { x: lineAt, y: line, mode: "lines", name: "breaker", line: { color: colour("bad"), width: 1.4, dash: "dot" }, hoverinfo: "skip" },
      { x: at, y: value, mode: "lines", name: "equity", line: { color: colour("accent"), width: 2 }, hovertemplate: "%{y:,.2f}" },
      { x: at, y: drawdown, mode: "lines", name: "drawdown", yaxis: "y2", fill: "tozeroy", line: { color: colour("bad"), width: 1 }, fillcolor: colour("bad-bg"), hovertemplate: "%{y:.2f} %" },
    ];
    await Plotly.react(element, traces, layout({
      yaxis: { domain: [0.34, 1], tickformat: ",.0f" }, yaxis2: { domain: [0, 0.26], ticksuffix: " %", rangemode: "tozero", nticks: 4 },
      xaxis: { anchor: "y2", range: [from && opens.length && from > at[0] ? from : at[0], at[at.length - 1]] },
    }), config);
    return undefined;
  }

  async function candles(element, symbol) {
    const data = await get(`/api/candles?limit=${window.innerWidth < 700 ? 96 : 192}&symbol=${encodeURIComponent(symbol)}`);
    if (!data.bars.length) return empty(element, "No bars are stored for this symbol.");
    const at = data.bars.map((bar) => bar.open_time);
    const last = at[at.length - 1];
    const column = (name) => data.bars.map((bar) => bar[name]);
    const traces = [{
      type: "candlestick", x: at, open: column("open"), high: column("high"), low: column("low"), close: column("close"), name: symbol,
      increasing: { line: { color: colour("good"), width: 1 } }, decreasing: { line: { color: colour("bad"), width: 1 } },
    }];
    for (const stop of data.stops) {
      const ended = !["planned", "sent", "working", "partial"].includes(stop.state);
      traces.push({ x: [stop.from, ended ? stop.to : last], y: [Number(stop.price), Number(stop.price)], mode: "lines", name: "stop", line: { color: colour("warn"), width: 1.5, dash: "dash" }, hovertemplate: "stop %{y}" });
    }
    for (const [buy, marker] of [[true, "triangle-up"], [false, "triangle-down"]]) {
      const fills = data.fills.filter((fill) => fill.is_buy === buy);
      if (fills.length) traces.push({
        x: fills.map((fill) => fill.at), y: fills.map((fill) => Number(fill.price)), mode: "markers", name: buy ? "bought" : "sold",
        text: fills.map((fill) => fill.role || ""), hovertemplate: "%{text} %{y}",
        marker: { symbol: marker, size: 13, color: colour(buy ? "accent" : "ink"), line: { color: colour("card"), width: 1.5 } },
      });
    }
    await Plotly.react(element, traces, layout({ hovermode: "closest", xaxis: { rangeslider: { visible: false }, range: [at[0], last] }, yaxis: { side: "left" } }), config);
    return undefined;
  }

  return { equity, candles };
})();
