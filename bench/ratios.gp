# SPDX-License-Identifier: LGPL-2.1-or-later
# The plot of a run: for each workload the servers' ratios to the raw limit.
# report.py sets data, picture, kind (of terminal), and the numbers of servers and
# workloads. Few workloads have a smaller picture with room for their names in a line.
width = workloads > 6 ? 1400 : 1000
height = workloads > 6 ? 640 : 420
if (kind eq "svg") {
    set terminal svg size width,height font "sans,13" background "white"
} else {
    set terminal pngcairo size width,height font "sans,11"
}
set output picture
set datafile separator "\t"
set datafile missing "?"
set title "Speed as a ratio to nbdkit's file plugin on the raw file (1 = as fast as the raw file)"
set style data histogram
set style histogram clustered gap 1.5
set style fill solid 0.9 noborder
set boxwidth 0.92
# Up to the highest bar: none is cut off.
set yrange [0:*]
set xrange [-0.6:*]
set ylabel "ratio to the raw limit"
set grid ytics lc rgb "#dddddd"
if (workloads > 6) {
    set xtics rotate by 35 right scale 0 noenhanced font ",10"
    set bmargin 11
} else {
    set xtics norotate center scale 0 noenhanced font ",10"
    set bmargin 3.5
}
set key outside top center horizontal noenhanced
set lmargin 14
set rmargin 4
set arrow from graph 0, first 1 to graph 1, first 1 nohead lc rgb "#444444" dt 2
array colour[8] = ["#d62728", "#7f7f7f", "#1f77b4", "#17becf", "#2ca02c", "#bcbd22", "#9467bd", "#ff7f0e"]
plot for [i=1:servers] data using i+1:xtic(1) title columnheader(i+1) lc rgb colour[i]
